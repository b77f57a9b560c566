"""Answers on disk, found by the content of what was asked."""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, cast, get_args

from fdjax.encoding import decode, encode
from fdjax.errors import DataError
from fdjax.feedback.chat.chat import Finish, Question, Reply
from fdjax.feedback.usage import Usage

__all__ = ["Recording", "question_key"]

_log = logging.getLogger(__name__)

_BEGIN = b'{"key": "'
"""How a row begins."""


def question_key(identity: Mapping[str, Any], question: Question) -> str:
    """64 hexadecimal digits of SHA-256 over all that decides an answer.

    Args:
      identity: of the model (`Chat.identity`).
      question: template with version, and the rendered messages.
    """
    content = [dict(identity), question.template, question.system, question.user]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Recording:
    """A JSON lines file of answers that several processes may read and append to.

    A row holds `key`, `identity`, the question's `system`, `user`, `template` and
    `template_digest`, and the answer's `text`, `finish` and `usage`. Files of several
    runs may be joined with `cat`: of rows with one key the first counts. A process that
    is killed leaves at most half a line, which its successors step over: that answer is
    asked for again. Methods may be called from one thread at a time.
    """

    def __init__(self, path: Path, *, writable: bool = True) -> None:
        """Open the file and find out what it holds.

        Args:
          path: of the file; it and its folder are made where they are not there.
          writable: whether rows will be added; otherwise the file must be there.

        Raises:
          DataError: it cannot be opened, or holds something else than answers.
        """
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}
        self._read_to = 0
        self._writer: BinaryIO | None = None
        try:
            if writable:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = path.open("ab", buffering=0)
            self._reader: BinaryIO = path.open("rb")
        except OSError as error:
            self._close_writer()
            raise DataError(
                f"expected a recording of feedback at {path}, got {error}: name a file "
                "that may be read" + (" and written" if writable else "")
            ) from error
        try:
            self._read_on()
            self._require_recording()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Answers that are known by now."""
        return len(self._places)

    def get(self, key: str) -> Reply | None:
        """The answer with this key, by whichever process; None where there is none.

        Raises:
          DataError: the file cannot be read.
        """
        if key not in self._places:
            self._read_on()
        if key not in self._places:
            return None
        start, size = self._places[key]
        row = _row_of(self._slice(start, size))
        reply = None if row is None or row["key"] != key else _reply_of(row)
        if reply is None:
            _log.warning("%s was changed while it was in use", self._path)
            del self._places[key]
        return reply

    def put(
        self, identity: Mapping[str, Any], question: Question, reply: Reply
    ) -> Reply:
        """Append an answer, unless another process was first.

        The row is handed to the operating system before this returns.

        Returns:
          The answer that is in the file now: whoever reads it gets this one.

        Raises:
          DataError: the file cannot be read or written.
        """
        key = question_key(identity, question)
        line = encode(
            {
                "key": key,
                "identity": dict(identity),
                **asdict(question),
                "text": reply.text,
                "finish": reply.finish,
                "usage": asdict(reply.usage),
            }
        )
        assert self._writer is not None
        try:
            with _locked(self._writer, self._path):
                first = self.get(key)
                if first is None:
                    self._append(line)
        except OSError as error:
            raise DataError(
                f"expected to write an answer to {self._path}, got {error}: free disk "
                "space, or name another file; what is recorded is kept"
            ) from error
        return first or reply

    def keep(
        self, identity: Mapping[str, Any], question: Question, reply: Reply
    ) -> Reply:
        """The answer that is in the file now, at the cost of this one.

        Where the disk refuses, this one is used and not recorded; the log says so.
        """
        try:
            kept = self.put(identity, question, reply)
        except DataError as error:
            _log.error("An answer is used and not recorded: %s", error)
            return reply
        # Another process may have been first; this one has paid all the same.
        return replace(kept, usage=reply.usage)

    def close(self) -> None:
        """Close the file; closing it again does nothing."""
        self._reader.close()
        self._close_writer()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _append(self, line: bytes) -> None:
        """Writes a whole line behind whole lines."""
        assert self._writer is not None
        size = os.fstat(self._writer.fileno()).st_size
        if size and self._slice(size - 1, 1) != b"\n":
            # Its writer was killed. The rest of that line is lost, no other.
            line = b"\n" + line
        view = memoryview(line)
        while view:
            view = view[self._writer.write(view) :]

    def _read_on(self) -> None:
        """Finds the answers that were added since the last time, by any process."""
        try:
            self._reader.seek(self._read_to)
            while (line := self._reader.readline()).endswith(b"\n"):
                row = _row_of(line)
                if row is not None and _reply_of(row) is not None:
                    self._places.setdefault(row["key"], (self._read_to, len(line)))
                elif line.strip():
                    _log.warning("%s: %r… is no answer", self._path, line[:60])
                self._read_to += len(line)
        except OSError as error:
            raise DataError(
                f"expected to read the recording {self._path}, got {error}: make it "
                "readable"
            ) from error

    def _require_recording(self) -> None:
        """Refuses a file in which nothing is an answer, or the beginning of one."""
        self._reader.seek(0)
        begin = self._reader.read(len(_BEGIN))
        if not self._places and not _BEGIN.startswith(begin):
            raise DataError(
                f"{self._path}: expected answers with key, text, finish and usage, got "
                f"{begin!r}…: the file is no recording; name another one"
            )

    def _slice(self, start: int, size: int) -> bytes:
        self._reader.seek(start)
        return self._reader.read(size)


def _row_of(line: bytes) -> dict[str, Any] | None:
    try:
        row = decode(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("key"), str) else None


def _reply_of(row: Mapping[str, Any]) -> Reply | None:
    """The answer in a row; None where it is something else."""
    text, finish, usage = row.get("text"), row.get("finish"), row.get("usage")
    if not isinstance(text, str) or not isinstance(usage, dict):
        return None
    if finish not in get_args(Finish):
        return None
    # Another version may have counted other things.
    counts = {
        field.name: usage[field.name]
        for field in fields(Usage)
        if isinstance(usage.get(field.name), int | float)
    }
    return Reply(text=text, finish=cast(Finish, finish), usage=Usage(**counts))


@contextmanager
def _locked(file: BinaryIO, path: Path) -> Iterator[None]:
    """No other process writes meanwhile."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        # Some network file systems have no locks; one process needs none.
        _log.warning("%s cannot be locked: %s", path, error)
        yield
        return
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
