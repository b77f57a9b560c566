"""What a host finds of itself: the room where a run writes."""

from collections import namedtuple
from pathlib import Path

import pytest

from fdjax.pod import facts
from fdjax.pod.facts import facts_of_host
from fdjax.pod.options import DoctorOptions

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def disks(tmp_path, monkeypatch):
    """Free bytes by folder; what is below a folder is on its disk."""
    free = {}

    def usage(path):
        home = next(one for one in (path, *path.parents) if one in free)
        return Usage(free[home] and 10**15, 0, free[home])

    monkeypatch.setattr(facts.shutil, "disk_usage", lambda path: usage(Path(path)))
    monkeypatch.setattr(facts.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.setattr(facts, "_lean", lambda options: (True, ""))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("tmp", "cache", "shared"):
        (tmp_path / name).mkdir()
        free[tmp_path / name] = 80 * 10**9
    return free


def room(runs=""):
    found = facts_of_host(DoctorOptions(runs=str(runs)))
    return found.disk_gb, found.disk


@pytest.mark.parametrize(
    ("runs", "full", "named"),
    [
        # It is made by the run, so its disk is that of the folder above.
        ("shared/new/runs", "shared", "shared/new/runs"),
        ("shared/runs", "cache", "cache/fdjax"),
        ("shared/runs", "tmp", "tmp"),
        ("", "cache", "cache/fdjax"),
    ],
)
def test_the_fullest_disk_that_a_run_writes_to_counts(
    disks, tmp_path, runs, full, named
):
    disks[tmp_path / full] = 1_500_000_000
    assert room(tmp_path / runs if runs else "") == (1.5, str(tmp_path / named))


def test_rows_of_a_run_in_a_bucket_are_written_into_the_cache(disks, tmp_path):
    rows = tmp_path / "cache" / "fdjax" / "gs"
    rows.mkdir(parents=True)
    disks[rows] = 10**9
    assert room("gs://bucket/runs") == (1.0, str(rows / "bucket" / "runs"))


def test_a_file_system_that_keeps_no_count_is_not_full(disks, tmp_path):
    disks[tmp_path / "shared"] = 0
    gb, named = room(tmp_path / "shared" / "runs")
    assert (gb, named) != (0.0, str(tmp_path / "shared" / "runs"))
    assert gb == 80.0
