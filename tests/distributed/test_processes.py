"""Real processes with real collectives give what one process gives."""

import jax
import pytest

from checkpoint.folders import read_folder, tensors, write_folder
from distributed.launch import launch
from distributed.worker import work
from fdjax.checkpoint import convert, open_source
from tiny import mesh_of


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    # As users have it: optax needs standard promotion.
    with jax.numpy_dtype_promotion("standard"):
        return work(mesh_of(), tmp_path_factory.mktemp("alone"))


def test_two_processes_equal_one_device(tmp_path, alone):
    source = write_folder(tmp_path / "hf", files=3, dtype="float32")
    convert(open_source(source), tmp_path / "orbax", to="orbax")
    for result in launch("worker.py", tmp_path, 2):
        assert result["restored"]
        assert result["host"] == {"position": 7}
        # The first process sees no rise in the second row, and decides for both.
        assert result["iterations"] == alone["iterations"] == 2
        # It sees a low reward, and stops both.
        assert "expected reward/mean to be at least 0.5, got 0" in alone["alarm"]
        assert result["alarm"] == alone["alarm"]
        assert result["tokens"] == alone["tokens"]
        assert result["teacher"] == pytest.approx(alone["teacher"], rel=1e-5)
        for got, want in zip(result["history"], alone["history"], strict=True):
            assert got == pytest.approx(want, rel=2e-5, abs=1e-6)

    doubled = {
        name: ("float32", array.shape, (2 * array).tobytes())
        for name, array in tensors(dtype="float32").items()
    }
    for kind in ("hf", "orbax"):
        assert read_folder(tmp_path / f"{kind}-doubled") == doubled
