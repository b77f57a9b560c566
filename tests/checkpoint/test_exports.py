"""Exports beside training: the same bytes as a save, one at a time, never an error."""

import shutil
import threading

import jax
import jax.numpy as jnp
import pytest

from fdjax.checkpoint import (
    CheckpointStore,
    Exports,
    Retention,
    export_policy,
    save_pretrained,
    write_description,
)
from tiny import MODEL, TOKENIZER


@pytest.fixture(scope="module")
def description(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "description"
    write_description(folder, MODEL.config, TOKENIZER)
    return folder


def small(step):
    return {"w": jnp.full(2, float(step))}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_export_is_what_a_save_at_that_step_writes(tmp_path, description):
    params = jax.jit(MODEL.init)(jax.random.key(0))
    exports = Exports(tmp_path / "exports", export_policy(MODEL.config, description))
    with CheckpointStore(tmp_path / "checkpoints") as store:
        store.save(4, {"params": params}, {})
        exports.begin(store, 4, "fd-4")
        exports.wait()
    saved = tmp_path / "saved"
    save_pretrained(params, MODEL.config, saved, description=description)
    assert contents(tmp_path / "exports" / "fd-4") == contents(saved)
    assert exports.missing == 0


class Slow:
    """Writes a file once it may, and calls back before and after."""

    def __init__(self):
        self.may = threading.Event()
        self.begun = threading.Event()

    def __call__(self, step, target, progress):
        self.begun.set()
        progress(0, 2, "w")
        assert self.may.wait(60)
        progress(1, 2, "w")
        assert sorted(path.name for path in step.iterdir()) != []
        target.mkdir(parents=True)
        (target / "weights").write_text(step.name)


def test_a_checkpoint_stays_until_it_is_exported(tmp_path, caplog):
    slow = Slow()
    exports = Exports(tmp_path / "exports", slow)
    with CheckpointStore(tmp_path / "checkpoints", Retention(newest=1)) as store:
        for step in (1, 2, 3):
            store.save(step, small(step), {})
            exports.begin(store, step, f"fd-{step}")
        store.wait()
        assert store.steps == [1, 3]
        # Those of 2 and 3 were due while the first was being written.
        assert exports.missing == 2
        assert "exports/fd-2: fd-1 is still being written" in caplog.text
        slow.may.set()
        exports.wait()
        exports.begin(store, 1, "fd-1")  # it is there
        store.save(4, small(4), {})
        store.wait()
        assert store.steps == [4]
    assert [path.name for path in (tmp_path / "exports").iterdir()] == ["fd-1"]
    assert (tmp_path / "exports" / "fd-1" / "weights").read_text() == "1"


def test_one_that_is_cancelled_leaves_nothing(tmp_path):
    slow = Slow()
    exports = Exports(tmp_path / "exports", slow)
    with CheckpointStore(tmp_path / "checkpoints") as store:
        store.save(1, small(1), {})
        exports.begin(store, 1, "fd-1")
        assert slow.begun.wait(60)
        ended = threading.Thread(target=exports.cancel)
        ended.start()
        slow.may.set()
        ended.join()
        assert list((tmp_path / "exports").iterdir()) == []
        # The next one is made.
        exports.begin(store, 1, "fd-1")
        exports.wait()
    assert (tmp_path / "exports" / "fd-1").is_dir()
    assert exports.missing == 0


def test_a_failure_is_said_and_counted(tmp_path, caplog):
    def full(step, target, progress):
        target.mkdir(parents=True)
        (target / "half").write_text("")
        raise OSError("No space left on device")

    exports = Exports(tmp_path / "exports", full)
    with CheckpointStore(tmp_path / "checkpoints") as store:
        store.save(1, small(1), {})
        exports.begin(store, 1, "fd-1")
        exports.wait()
    assert exports.missing == 1
    assert "Left out the export" in caplog.text
    assert "No space left" in caplog.text
    assert list((tmp_path / "exports").iterdir()) == []


def test_an_export_leaves_room_for_a_checkpoint(tmp_path, caplog, monkeypatch):
    slow = Slow()
    exports = Exports(tmp_path / "exports", slow)
    with CheckpointStore(tmp_path / "checkpoints") as store:
        store.save(1, small(1), {})
        store.wait()
        files = (tmp_path / "checkpoints" / "1").rglob("*")
        size = sum(path.stat().st_size for path in files if path.is_file())
        usage = shutil.disk_usage(tmp_path)._replace(free=2 * size - 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        exports.begin(store, 1, "fd-1")
        exports.wait()
    assert "twice the checkpoint" in caplog.text
    assert exports.missing == 1
    assert not slow.begun.is_set()


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".fd-1.partly").mkdir()
    (tmp_path / "fd-2").mkdir()
    Exports(tmp_path, shutil.copytree)
    assert [path.name for path in tmp_path.iterdir()] == ["fd-2"]
