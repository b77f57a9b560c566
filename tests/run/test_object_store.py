"""Runs that are kept in an object store, which answers over HTTP on this machine."""

import os
import shutil
import time
import uuid
from pathlib import Path

import pytest

pytest.importorskip("google_crc32c", reason="needs the extra: pip install 'fdjax[gcs]'")

import forked
from feedback.model_server import ModelServer, in_thread
from object_store import shared_store
from run.test_killed import ENVIRONMENT, KILLABLE, Ended, kill, reviewed


@pytest.fixture
def store():
    server = shared_store()
    yield server
    server.fault = lambda method, path: None


class Runs:
    """Runs of `killable.py` by processes whose disks are their own."""

    def __init__(self, folder, policy, store, server):
        self.folder, self.policy = folder, policy
        self.store, self.server = store, server
        self.bucket = uuid.uuid4().hex

    def address(self, name):
        return f"gs://bucket/{self.bucket}/{name}"

    def start(self, place, disk):
        environment = ENVIRONMENT | self.store.environment
        environment["XDG_CACHE_HOME"] = str(self.folder / disk)
        # Lean stays where it is.
        (self.folder / disk).mkdir()
        lean = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        (self.folder / disk / "fdjax").mkdir()
        for one in (lean / "fdjax").iterdir():
            if one.name != "gs":
                (self.folder / disk / "fdjax" / one.name).symlink_to(one)
        with (self.folder / f"{disk}.log").open("wb") as log:
            return forked.start(
                [KILLABLE, place, self.policy, self.server.url, "--resume", "auto"],
                environment=environment,
                output=log,
            )

    def said(self, disk):
        return (self.folder / f"{disk}.log").read_text()

    def fetch(self, name):
        """All objects of a run, as files."""
        prefix = f"{self.bucket}/{name}/"
        target = self.folder / "fetched" / name
        for full in self.store.names(prefix):
            path = target / full.removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.store.objects[full].content)
        return target

    def count(self, name, part):
        return sum(part in full for full in self.store.names(f"{self.bucket}/{name}/"))


@pytest.fixture
def runs(policy, tmp_path, store):
    server = ModelServer(reviewed)
    with in_thread(server):
        yield Runs(tmp_path, policy, store, server)


def wait(process):
    try:
        return process.wait(timeout=1200)
    finally:
        kill(process)


def until(process, condition):
    while not condition():
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.slow
def test_a_killed_run_goes_on_from_the_store_alone(runs):
    """The disk of the machine is lost with it; the run ends as one on a disk does.

    A minute of processor time: five starts.
    """
    alone = runs.start(runs.folder / "undisturbed", "disk0")
    assert wait(alone) == 0, runs.said("disk0")[-3000:]
    expected = Ended.read(runs.folder / "undisturbed")
    moments = (
        lambda: runs.count("run", "journal/fd/0.0.") >= 6,
        lambda: runs.count("run", "checkpoints/fd/4/commit_success.txt"),
        lambda: runs.count("run", "journal/grpo/2.0.") >= 1,
    )
    for number, moment in enumerate(moments, start=1):
        process = runs.start(runs.address("run"), f"disk{number}")
        until(process, moment)
        kill(process)
        shutil.rmtree(runs.folder / f"disk{number}")
    last = runs.start(runs.address("run"), "last")
    assert wait(last) == 0, runs.said("last")[-3000:]
    left = Ended.read(runs.fetch("run"))
    for part in ("metrics", "samples", "probes", "checkpoints", "policy"):
        assert getattr(left, part) == getattr(expected, part), part
    assert runs.count("run", "report.html") == 1
    assert runs.count("run", "lock") == 0
    assert not list((runs.folder / "last" / "fdjax" / "gs").glob("**/run"))
