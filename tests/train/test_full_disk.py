"""A disk that is full ends a run with a clear error, and with room it goes on.

The disk is a real one of a few megabytes, which takes the right to mount. Without it
`tests/checkpoint` and `tests/test_jsonl.py` still have limits on the size of files.
"""

import shutil
import subprocess
from dataclasses import replace

import pytest

from fdjax.checkpoint import checkpoint_steps
from fdjax.errors import CheckpointError
from fdjax.metrics import read_metrics
from fdjax.records import Mean
from serving import wait_until
from train.small_loop import assert_same_bits, checkpoints, run, source, values


class Wordy:
    """A source whose rows are longer than the pages of a disk."""

    def __init__(self):
        self._inner = source()
        self.get_state, self.set_state = self._inner.get_state, self._inner.set_state

    def next(self, state, timer):
        metrics = {"test/" + 5_000 * "x": Mean(1.0, 1)}
        return replace(self._inner.next(state, timer), metrics=metrics)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return run(tmp_path_factory.mktemp("straight"), source=Wordy())


@pytest.fixture
def disk(tmp_path):
    """A disk of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, timeout=10)


def filled(disk, *, but=0):
    """Leaves so many bytes of room."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        while free := shutil.disk_usage(disk).free:
            file.write(bytes(free))
        file.truncate(file.tell() - but)


def filling(disk, at, **room):
    """Fills the disk before an iteration, once the checkpoint before it is there."""

    def on_data(done, state, data):
        if done == at:
            wait_until(lambda: checkpoint_steps(disk / "run" / "checkpoints") == [4])
            filled(disk, **room)

    return on_data


def test_rows_that_do_not_fit(disk, straight):
    folder = disk / "run"
    with pytest.raises(OSError, match=r"No space left .*metrics\.jsonl") as raised:
        run(folder, source=Wordy(), on_data=filling(disk, 5))
    rows, could_not = raised.value.__notes__
    assert "rows before are whole; make room" in rows
    assert "could not be saved" in could_not
    assert [row["step"] for row in read_metrics(folder / "metrics.jsonl")] == [
        *range(1, 6)
    ]
    # The same command fails alike while there is no room, and then goes on.
    with pytest.raises(OSError, match="No space left"):
        run(folder, source=Wordy())
    (disk / "ballast").unlink()
    assert checkpoints(folder) == [4]
    state, rows = run(folder, source=Wordy())
    assert_same_bits(state, straight[0])
    assert values(rows) == values(straight[1])


def test_a_checkpoint_that_does_not_fit(disk, straight):
    folder = disk / "run"
    with pytest.raises(CheckpointError, match=r"no room for .* Make room and resume"):
        run(folder, source=Wordy(), on_data=filling(disk, 5, but=40_000))
    (disk / "ballast").unlink()
    assert checkpoints(folder) == [4]
    state, rows = run(folder, source=Wordy())
    assert_same_bits(state, straight[0])
    assert values(rows) == values(straight[1])
