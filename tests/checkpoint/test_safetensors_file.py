"""Files written a tensor at a time are those that the library writes at once."""

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fdjax.checkpoint.safetensors_file import SafetensorsFile

RNG = np.random.default_rng(0)
TENSORS = {
    "b.wide": RNG.normal(size=(3, 5)).astype(np.float32),
    "a.odd": RNG.normal(size=(7,)).astype(ml_dtypes.bfloat16),
    "∀": RNG.normal(size=(1, 3)).astype(ml_dtypes.bfloat16),
    "a": RNG.normal(size=(4,)).astype(np.float32),
}


@pytest.mark.parametrize("names", [list(TENSORS), list(TENSORS)[::-1], ["∀"]])
def test_the_bytes_are_those_of_the_library(tmp_path, names):
    chosen = {name: TENSORS[name] for name in names}
    save_file(chosen, tmp_path / "theirs", metadata={"format": "pt"})
    kinds = {name: (str(array.dtype), array.shape) for name, array in chosen.items()}
    file = SafetensorsFile(tmp_path / "ours", kinds)
    for name, array in chosen.items():
        file.write(name, array)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_an_array_that_is_no_block_of_memory(tmp_path):
    wide = TENSORS["b.wide"]
    SafetensorsFile(tmp_path / "a", {"t": ("float32", (5, 3))}).write("t", wide.T)
    np.testing.assert_array_equal(load_file(tmp_path / "a")["t"], wide.T)
