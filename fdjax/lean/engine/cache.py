"""Verdicts on disk, found by the content of what was checked."""

import hashlib
import itertools
import json
import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, replace
from pathlib import Path

from fdjax.lean.facts.backend import CheckRequest, Limits, WholeFile
from fdjax.lean.facts.verdict import Verdict

__all__ = ["VerdictCache", "cache_setting", "verdict_key"]

_log = logging.getLogger(__name__)

SCHEMA_VERSION = 7
"""Raise it when the meaning of a verdict changes: scan, judgement, fields."""
IN_MEMORY = 50_000
"""Verdicts kept in front of the file, 1 to 2 kB each."""
DIGEST_BYTES = 16
QUERY_SIZE = 500
BUSY_S = 5.0
"""How long one call waits for other processes that write."""

GIVEN_UP = "verdicts are no longer written to %s (%s); verification goes on"

_CREATE = "CREATE TABLE IF NOT EXISTS verdicts (key BLOB PRIMARY KEY, entry BLOB)"


def cache_setting(identity: str, limits: Limits) -> bytes:
    """What all keys of one verifier share: backend, limits and schema version."""
    return repr((SCHEMA_VERSION, identity, astuple(limits))).encode()


def verdict_key(request: CheckRequest, setting: bytes) -> bytes:
    """SHA-256 of everything that decides the verdict.

    Args:
      request: the proof and its trusted source.
      setting: from `cache_setting`.
    """
    digest = hashlib.sha256(setting)
    proof = request.proof or ""
    kind, body = ("file", proof.text) if isinstance(proof, WholeFile) else ("", proof)
    for text in (request.name, request.header, request.statement, kind, body):
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(encoded) + encoded)
    return digest.digest()


class VerdictCache:
    """An in-memory map in front of an SQLite file that processes may share.

    The file is never needed. A damaged one is moved aside and started afresh; when it
    cannot be read or written (full disk) this is logged once and the cache goes on in
    memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open or create the file.

        Args:
          path: the SQLite file; None keeps verdicts in memory only.
        """
        self._path = path
        self._lock = threading.Lock()
        self._memory: OrderedDict[bytes, Verdict] = OrderedDict()
        self._unsaved: dict[bytes, bytes] = {}
        self._flushed = time.monotonic()
        self._file: int | None = None  # inode of the file that is open
        self._database = self._open()

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Verdict]:
        """The verdicts that are known, marked as cached."""
        with self._lock:
            found = {}
            missing = []
            for key in keys:
                verdict = self._memory.get(key)
                if verdict is None:
                    missing.append(key)
                else:
                    found[key] = verdict
            if missing and self._database is not None:
                loaded = self._load(missing)
                found.update(loaded)
                for key, verdict in loaded.items():
                    self._remember(key, verdict)
            return found

    def put(self, key: bytes, verdict: Verdict) -> None:
        """Keep a verdict that lasts; `flush` writes it."""
        if not verdict.lasting:
            return
        verdict = replace(verdict, cached=True)
        with self._lock:
            self._remember(key, verdict)
            if self._database is not None:
                self._unsaved[key] = _encode(key, verdict)

    def flush(self, every_s: float = 0.0) -> None:
        """Write what `put` collected, unless it was done less than `every_s` ago."""
        with self._lock:
            now = time.monotonic()
            if now - self._flushed < every_s:
                return
            self._flushed = now
            unsaved, self._unsaved = self._unsaved, {}
            if not unsaved or self._database is None:
                return
            try:
                with self._database:
                    self._database.executemany(
                        "INSERT OR REPLACE INTO verdicts VALUES (?, ?)", unsaved.items()
                    )
            except sqlite3.Error as error:
                if _is_busy(error) and len(unsaved) < IN_MEMORY:
                    self._unsaved = unsaved  # another process writes: next time
                else:
                    self._fail(error)

    def close(self) -> None:
        """Write what is left and close the file."""
        self.flush()
        with self._lock:
            if self._unsaved:
                _log.warning(
                    "%d verdicts were not written to %s: it is locked",
                    len(self._unsaved),
                    self._path,
                )
            if self._database is not None:
                self._database.close()
                self._database = None

    def _open(self) -> sqlite3.Connection | None:
        if self._path is None:
            return None
        try:
            return self._connect(self._path)
        except (sqlite3.Error, OSError) as error:
            return self._reopen(self._path, error)

    def _reopen(self, path: Path, error: Exception) -> sqlite3.Connection | None:
        """A fresh file in place of a damaged one; None for other errors."""
        if not _is_damage(error):
            # Locked, full or not permitted: another process may be using the file.
            _log.warning(GIVEN_UP, path, error)
            return None
        try:
            if self._file in (None, path.stat().st_ino):
                aside = next(p for p in _damaged(path) if not p.exists())
                path.rename(aside)
                for suffix in ("-wal", "-shm"):
                    Path(f"{path}{suffix}").unlink(missing_ok=True)
                _log.warning(
                    "%s is damaged or no cache of verdicts (%s); it is kept as %s and "
                    "started afresh",
                    path,
                    error,
                    aside.name,
                )
            return self._connect(path)
        except (sqlite3.Error, OSError) as again:
            _log.warning(GIVEN_UP, path, again)
            return None

    def _connect(self, path: Path) -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False)
        try:
            _begin_log(database)
            # Enough for the file to survive a power cut; the last verdicts may not.
            database.execute("PRAGMA synchronous=NORMAL")
            with database:
                database.execute(_CREATE)
            self._file = path.stat().st_ino
        except (sqlite3.Error, OSError):
            database.close()
            raise
        return database

    def _load(self, keys: list[bytes]) -> dict[bytes, Verdict]:
        assert self._database is not None
        found: dict[bytes, Verdict] = {}
        damaged = []
        try:
            for start in range(0, len(keys), QUERY_SIZE):
                part = keys[start : start + QUERY_SIZE]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, entry FROM verdicts WHERE key IN ({marks})"
                for key, entry in self._database.execute(query, part):
                    verdict = _decode(key, entry)
                    if verdict is None:
                        damaged.append(key)
                    else:
                        found[key] = verdict
            self._drop(damaged)
        except sqlite3.Error as error:
            if not _is_busy(error):  # a damaged entry is dropped another time
                self._fail(error)
        return found

    def _drop(self, keys: Iterable[bytes]) -> None:
        assert self._database is not None
        for key in keys:
            _log.warning("%s: dropping a damaged entry", self._path)
            with self._database:
                self._database.execute("DELETE FROM verdicts WHERE key = ?", (key,))

    def _remember(self, key: bytes, verdict: Verdict) -> None:
        self._memory[key] = verdict
        if len(self._memory) > IN_MEMORY:
            self._memory.popitem(last=False)

    def _fail(self, error: sqlite3.Error) -> None:
        """Go on after an error: with a fresh file, or in memory."""
        assert self._path is not None
        if self._database is not None:
            self._database.close()
        self._database = self._reopen(self._path, error)


def _begin_log(database: sqlite3.Connection) -> None:
    """Switch to write-ahead logging.

    SQLite's own patience does not cover this switch: a process that opens the file at
    the same time is told at once that it is locked.
    """
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _damaged(path: Path) -> Iterator[Path]:
    """Names for a file that is moved aside."""
    yield Path(f"{path}.damaged")
    yield from (Path(f"{path}.damaged-{number}") for number in itertools.count(2))


def _is_damage(error: Exception) -> bool:
    codes = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return isinstance(error, sqlite3.Error) and error.sqlite_errorcode & 0xFF in codes


def _is_busy(error: sqlite3.Error) -> bool:
    """Whether another process holds the file; the first byte is the primary code."""
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _encode(key: bytes, verdict: Verdict) -> bytes:
    text = json.dumps(verdict.to_dict(), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
    return _digest(key, text) + text


def _decode(key: bytes, entry: object) -> Verdict | None:
    """The verdict of an entry, None when it is not what was written for this key."""
    if not isinstance(entry, bytes):
        return None
    digest, text = entry[:DIGEST_BYTES], entry[DIGEST_BYTES:]
    if digest != _digest(key, text):
        return None
    try:
        return Verdict.from_dict(json.loads(text))
    except (KeyError, TypeError, ValueError):
        return None


def _digest(key: bytes, text: bytes) -> bytes:
    return hashlib.sha256(key + text).digest()[:DIGEST_BYTES]
