"""A run's files on this machine, and what of them is in the object store when."""

import uuid

import pytest

pytest.importorskip("google_crc32c", reason="needs the extra: pip install 'fdjax[gcs]'")

from fdjax.errors import ConfigError, StoreError
from fdjax.objects import lease, local_folder, place, read, walk, write
from fdjax.objects import store as objects
from fdjax.run import RunConfig, mirror
from fdjax.run.command import RESTART, run_command
from fdjax.run.mirror import open_mirror
from object_store import shared_store
from run.test_context import bought, failed, opened


@pytest.fixture
def store(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(objects, "PATIENCE_S", 0.5)
    server = shared_store()
    yield server
    server.fault = lambda method, path: None


@pytest.fixture
def home(store):
    return place(f"gs://bucket/{uuid.uuid4().hex}/run")


def test_what_is_written_is_kept_and_found_by_the_next(home, store):
    with open_mirror(home) as run:
        assert run.folder == local_folder(home)
        rows = run.folder / "metrics.jsonl"
        rows.write_text("one\n")
        (run.folder / ".partly").mkdir()
        (run.folder / ".partly" / "model").write_text("half")
        assert run.keep()
        assert read(home / "metrics.jsonl") == b"one\n"
        with rows.open("a") as file:
            file.write("two\n")
        before = len(store.requests)
        assert run.keep()
        sent = [path for _, path in store.requests[before:] if "/compose" in path]
        assert len(sent) == 1
        rows.write_text("one\n")
        rows.with_suffix(".tmp").write_text("three\n")
        rows.with_suffix(".tmp").replace(rows)
    assert not run.folder.exists()
    assert walk(home) == {"metrics.jsonl": 6}
    with open_mirror(home) as run:
        assert (run.folder / "metrics.jsonl").read_text() == "three\n"
        before = len(store.requests)
        assert run.keep()
        assert len(store.requests) == before


def test_nobody_else_writes_meanwhile(home, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    with (
        open_mirror(home),
        pytest.raises(ConfigError, match="at work there"),
        open_mirror(home),
    ):
        pass


def keep(run, text, **settings):
    (run.folder / "events.jsonl").write_text(text)
    return run.keep(**settings)


def test_a_store_that_does_not_answer_is_waited_for(home, store, monkeypatch, caplog):
    with open_mirror(home) as run:
        store.fault = lambda method, path: 503
        assert not keep(run, "a\n")
        assert "No checkpoint now" in caplog.text
        with pytest.raises(StoreError, match="expected the object store to answer"):
            keep(run, "a\nb\n", must=True)
        monkeypatch.setattr(mirror, "_PATIENCE_S", 0.0)
        with pytest.raises(StoreError):
            keep(run, "a\nb\n")
        store.fault = lambda method, path: None
        assert keep(run, "a\nb\nc\n")
    assert read(home / "events.jsonl") == b"a\nb\nc\n"


def fail_without_a_store(home, store):
    with open_mirror(home) as run:
        (run.folder / "events.jsonl").write_text("a\n")
        store.fault = lambda method, path: 503
        raise ValueError("oh no")


def test_what_an_error_leaves_here_alone_is_said(home, store):
    with pytest.raises(ValueError, match="oh no") as raised:
        fail_without_a_store(home, store)
    assert str(local_folder(home)) in " ".join(raised.value.__notes__)
    assert (local_folder(home) / "events.jsonl").read_text() == "a\n"


def go_on_in_vain(home):
    with open_mirror(home) as run:
        write(home / "lock", b'{"token": "other", "holder": "another"}')
        run._lease._beat_once()
        keep(run, "late\n")


def test_who_lost_the_lease_writes_no_more(home, monkeypatch):
    monkeypatch.setattr(lease, "STALE_S", 1.0)
    with pytest.raises(StoreError, match="another process"):
        go_on_in_vain(home)
    assert "events.jsonl" not in walk(home)


def config(home):
    return RunConfig(runs=home.parent)


def test_nothing_stays_of_a_run_that_did_nothing(home):
    failed(config(home))
    assert walk(home) == {}


def test_feedback_that_was_bought_before_any_training_stays(home):
    assert "goes on with --resume" in failed(config(home), bought)
    assert "config.json" in walk(home)
    with pytest.raises(ConfigError, match="Expected no run in"), opened(config(home)):
        pass


def test_what_is_no_run_is_left_alone(home):
    write(home / "checkpoints" / "mine", b"precious")
    with (
        pytest.raises(ConfigError, match="got one with checkpoints"),
        opened(config(home)),
    ):
        pass
    assert "checkpoints/mine" in walk(home)


def test_a_bucket_that_is_not_there_is_a_setting_to_correct(store):
    with (
        pytest.raises(ConfigError, match="check the bucket's name"),
        opened(RunConfig(runs=place("gs://elsewhere/runs"))),
    ):
        pass


def test_a_store_that_is_gone_asks_for_a_later_start():
    def gone(config, display):
        raise StoreError("gone")

    assert run_command(RunConfig(), gone, []) == RESTART
