"""What some processes saved, others read, however many they are.

Each start of processes takes seconds: seven are started, one after the other.
"""

import pytest

from distributed.checkpoints import read
from distributed.launch import launch
from fdjax.sharding import make_mesh


@pytest.fixture(scope="module")
def saved_by_four(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    for result in launch("checkpoints.py", folder, 4, "save"):
        # The first process's clock says when a checkpoint is due.
        assert result["due"] == [True, False]
    return folder


def test_four_save_and_one_reads(saved_by_four):
    assert read(make_mesh(data=1, fsdp=8), saved_by_four / "checkpoints") == {
        "done": 2,
        "same": True,
        "source": {"next": 2},
    }


@pytest.mark.parametrize(
    ("how", "done"), [("read", 2), ("read_where_one_sees_damage", 1)]
)
def test_four_save_and_two_read(saved_by_four, how, done):
    """Damage that one meets turns both to the checkpoint before."""
    for result in launch("checkpoints.py", saved_by_four, 2, how):
        assert result["done"] == done
        assert result["same"]
        assert result["source"] == {"next": done}
