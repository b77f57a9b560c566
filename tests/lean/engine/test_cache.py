"""The cache is quick, shared, and never needed."""

import logging
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from fdjax.lean import CheckRequest, Limits, Status, Verdict
from fdjax.lean.engine import cache as cache_module
from fdjax.lean.engine.cache import VerdictCache, cache_setting, verdict_key

REQUEST = CheckRequest(name="t", header="", statement="theorem t : True", proof="  x")
SETTING = cache_setting("lean", Limits())
KEY = verdict_key(REQUEST, SETTING)
VERDICT = Verdict(status=Status.VERIFIED, axioms=("propext",), seconds=0.5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "verdicts.sqlite"


def stored(path, key=KEY):
    cache = VerdictCache(path)
    try:
        return cache.get_many([key]).get(key)
    finally:
        cache.close()


def fill(path, key=KEY, verdict=VERDICT):
    cache = VerdictCache(path)
    cache.put(key, verdict)
    cache.close()


def test_round_trip_through_the_file(path):
    fill(path)
    assert stored(path) == replace(VERDICT, cached=True)


@pytest.mark.parametrize("status", [Status.TIMEOUT, Status.CRASHED])
def test_what_may_differ_next_time_is_not_kept(path, status):
    fill(path, verdict=replace(VERDICT, status=status))
    assert stored(path) is None


def test_every_part_of_a_request_changes_the_key():
    others = [
        verdict_key(replace(REQUEST, **{field: "y"}), SETTING)
        for field in ("name", "header", "statement", "proof")
    ]
    # The border between two texts counts as well.
    others.append(verdict_key(replace(REQUEST, name="", header="t"), SETTING))
    others.append(verdict_key(REQUEST, cache_setting("lean", Limits(wall_s=1.0))))
    others.append(verdict_key(REQUEST, cache_setting("other", Limits())))
    assert len({KEY, *others}) == 8


def test_a_damaged_entry_is_dropped(path, caplog):
    fill(path)
    with sqlite3.connect(path) as database:
        [[entry]] = database.execute("SELECT entry FROM verdicts")
        damaged = entry.replace(b"propext", b"propexx")
        assert damaged != entry
        database.execute("UPDATE verdicts SET entry = ?", (damaged,))
    database.close()
    assert stored(path) is None
    assert "damaged entry" in caplog.text
    database = sqlite3.connect(path)
    assert database.execute("SELECT count(*) FROM verdicts").fetchone() == (0,)
    database.close()


def test_an_entry_moved_to_another_key_is_dropped(path):
    fill(path)
    other = verdict_key(replace(REQUEST, proof="  cheat"), SETTING)
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE verdicts SET key = ?", (other,))
    database.close()
    assert stored(path, other) is None


def test_a_file_that_is_no_database_is_moved_aside(path):
    path.parent.mkdir()
    content = b"not a database at all, just bytes " * 100
    path.write_bytes(content)
    fill(path)
    assert stored(path) == replace(VERDICT, cached=True)
    assert path.with_name(f"{path.name}.damaged").read_bytes() == content


def test_a_file_damaged_inside_is_replaced_and_nothing_is_overwritten(path, caplog):
    keys = [number.to_bytes(32, "big") for number in range(2000)]
    for _ in range(2):
        cache = VerdictCache(path)
        for key in keys:
            cache.put(key, VERDICT)
        cache.close()
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(8192)  # the header and the schema stay
            file.write(b"x" * (size - 8192))
        cache = VerdictCache(path)
        assert cache.get_many(keys) == {}
        cache.put(keys[0], VERDICT)
        cache.close()
        assert stored(path, keys[0]) == replace(VERDICT, cached=True)
    assert caplog.text.count("started afresh") == 2
    aside = sorted(each.name for each in path.parent.glob("*.damaged*"))
    assert aside == [f"{path.name}.damaged", f"{path.name}.damaged-2"]


def test_a_file_that_another_process_has_replaced_is_opened_again(path):
    fill(path)
    cache = VerdictCache(path)
    path.rename(f"{path}.old")
    fill(path)
    damage = sqlite3.DatabaseError("malformed")
    damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    cache._fail(damage)
    assert cache.get_many([KEY]) == {KEY: replace(VERDICT, cached=True)}
    cache.close()
    assert not list(path.parent.glob("*.damaged*"))


def test_a_full_disk_is_logged_once_and_memory_goes_on(path, caplog):
    cache = VerdictCache(path)
    assert cache._database is not None
    cache._database.execute("PRAGMA max_page_count = 4")
    big = replace(VERDICT, reason="x" * 20_000)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            cache.put(KEY[:-1] + bytes([number]), big)
            cache.flush()
    assert caplog.text.count("no longer written") == 1
    assert cache.get_many([KEY[:-1] + b"\2"])
    cache.close()


def test_a_folder_that_cannot_be_written(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = VerdictCache(tmp_path / "file" / "verdicts.sqlite")
    cache.put(KEY, VERDICT)
    cache.flush()
    assert cache.get_many([KEY]) == {KEY: replace(VERDICT, cached=True)}
    assert "verification goes on" in caplog.text
    cache.close()


WRITER = """
import sys
from pathlib import Path
from fdjax.lean import Status, Verdict
from fdjax.lean.engine.cache import VerdictCache
cache = VerdictCache(Path(sys.argv[1]))
for number in range(300):
    key = bytes([int(sys.argv[2])]) * 30 + number.to_bytes(2, "big")
    cache.put(key, Verdict(status=Status.REJECTED, reason=sys.argv[2]))
    if number % 10 == 0:
        cache.flush()
cache.close()
"""


def test_two_processes_write_at_once(path):
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), number])
        for number in ("1", "2")
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    cache = VerdictCache(path)
    keys = [bytes([w]) * 30 + n.to_bytes(2, "big") for w in (1, 2) for n in range(300)]
    found = cache.get_many(keys)
    cache.close()
    assert [found[key].reason for key in keys] == ["1"] * 300 + ["2"] * 300


def test_opening_waits_for_a_process_that_opens_the_file(path, caplog):
    """SQLite itself does not wait while the journal's mode is changed."""
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE t (x)")
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    timer.start()
    fill(path)
    timer.join()
    other.close()
    assert caplog.text == ""
    assert stored(path) == replace(VERDICT, cached=True)


def test_what_a_locked_file_does_not_take_is_written_later(path, monkeypatch, caplog):
    monkeypatch.setattr(cache_module, "BUSY_S", 0.1)
    cache = VerdictCache(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    cache.put(KEY, VERDICT)
    cache.flush()
    assert stored(path) is None
    other.execute("COMMIT")
    other.close()
    cache.close()
    assert caplog.text == ""
    assert stored(path) is not None


def test_what_could_not_be_written_is_told(path, monkeypatch, caplog):
    monkeypatch.setattr(cache_module, "BUSY_S", 0.1)
    cache = VerdictCache(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    cache.put(KEY, VERDICT)
    cache.close()
    other.close()
    assert "1 verdicts were not written" in caplog.text


def test_hits_are_quick(path):
    cache = VerdictCache(path)
    keys = [number.to_bytes(32, "big") for number in range(5000)]
    for key in keys:
        cache.put(key, VERDICT)
    cache.close()
    cache = VerdictCache(path)
    begin = time.process_time()
    assert len(cache.get_many(keys)) == 5000
    from_file = time.process_time() - begin
    begin = time.process_time()
    assert len(cache.get_many(keys)) == 5000
    from_memory = time.process_time() - begin
    cache.close()
    # Runtime type checks are on in tests; 20,000 a second is the aim without them.
    assert from_memory < 0.25
    assert from_file < 2.5
