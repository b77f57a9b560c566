"""Submissions and verdicts as JSON lines, in files of any length."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from fdjax.errors import DataError
from fdjax.jsonl import Row, iterate_rows, shorten
from fdjax.lean.backend import Submission, WholeFile
from fdjax.lean.verdict import Status, Verdict
from fdjax.records import Problem

__all__ = ["Standing", "SubmissionRow", "Tally", "VerdictFile", "iterate_submissions"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SubmissionRow:
    """A proof, or a whole file, and the problem that it is for."""

    problem: Problem
    """Name, header and statement."""
    submission: Submission
    """What is to be checked."""

    def digest(self) -> str:
        """32 hexadecimal digits of SHA-256 over everything in the row."""
        problem, submission = self.problem, self.submission
        if isinstance(submission, WholeFile):
            kind, body = "source", submission.text
        else:
            kind, body = "proof", submission
        parts = (problem.name, problem.header, problem.statement, kind, body)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@dataclass(kw_only=True)
class Tally:
    """What has been decided so far."""

    statuses: Counter[Status] = field(default_factory=Counter)
    """Verdicts by status."""
    seconds: "array[float]" = field(default_factory=lambda: array("d"))
    """Wall times of the elaborations; what was not elaborated has none."""

    @property
    def rows(self) -> int:
        """All verdicts."""
        return self.statuses.total()

    def add(self, status: Status, seconds: float) -> None:
        """Count one verdict."""
        self.statuses[status] += 1
        if seconds > 0:
            self.seconds.append(seconds)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How much of an input a verdict file holds."""

    total: int
    """Rows of the input."""
    tally: Tally = field(default_factory=Tally)
    """The verdicts that are there."""
    crashed: "array[int]" = field(default_factory=lambda: array("q"))
    """Indices of those that are CRASHED."""


def iterate_submissions(path: Path) -> Iterator[SubmissionRow]:
    """The submissions of a JSON lines file in order, one at a time.

    A row holds `name`, `statement` (ends before `:=`), either `proof` (tactic text) or
    `source` (a whole file), and may hold `header`. Other keys are ignored; blank
    lines are skipped.

    Raises:
      DataError: the file cannot be read, or a row is not as described.
    """
    return map(_submission, iterate_rows(path))


def _submission(row: Row) -> SubmissionRow:
    if ("proof" in row.values) == ("source" in row.values):
        raise row.error(
            "either `proof` (tactic text) or `source` (a whole file)",
            f"the keys {shorten(str(sorted(row.values)))}",
            "give one of the two",
        )
    key = "proof" if "proof" in row.values else "source"
    body = row.values[key]
    # An empty submission is one that fails, not a fault of the file.
    if not isinstance(body, str):
        raise row.error(
            f"text for `{key}`", shorten(repr(body)), "write it as a JSON string"
        )
    problem = Problem(
        name=row.text("name", required=True),
        statement=row.statement(),
        header=row.text("header"),
    )
    return SubmissionRow(
        problem=problem, submission=body if key == "proof" else WholeFile(body)
    )


class VerdictFile:
    """A JSON lines file of verdicts, one for each submission and in the same order.

    A row is `name`, `digest` (of the submission) and the fields of a verdict, handed to
    the operating system in one write: a run that is killed leaves at most half a line
    at the end. The file is locked against other writers while it is open.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, with its folder if need be; nothing in it changes yet.

        Args:
          path: the JSON lines file; made when it does not exist.

        Raises:
          DataError: it is no regular file, or another process writes it.
        """
        self.path = path.resolve()
        if path.exists() and not path.is_file():
            raise DataError(
                f"Expected a file for verdicts at {path}, got something else; name a "
                "file that can be written and read."
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._new = not path.exists()
        self._open()

    def check(self, submissions: Iterable[SubmissionRow]) -> Standing:
        """Read all submissions and compare them with the rows that are there.

        Half a line at the file's end is cut off.

        Raises:
          DataError: the file holds something else; it stays as it was.
        """
        total = whole = 0
        tally, crashed = Tally(), array("q")
        with self.path.open("rb") as file:
            # A line without an end was on its way when the writer was killed.
            lines = iter(line for line in file if line.endswith(b"\n"))
            for total, submission in enumerate(submissions, start=1):
                if (line := next(lines, None)) is None:
                    continue
                whole += len(line)
                status, seconds = self._read(total, line, submission)
                tally.add(status, seconds)
                if status is Status.CRASHED:
                    crashed.append(total - 1)
            if (line := next(lines, None)) is not None:
                raise self._foreign(total + 1, "no more rows than the input's", line)
        self._cut(whole)
        return Standing(total=total, tally=tally, crashed=crashed)

    def clear(self) -> None:
        """Remove all rows."""
        self._cut(0)

    def append(self, submission: SubmissionRow, verdict: Verdict) -> None:
        """Write the next row; all of it or, when that fails, nothing."""
        view = memoryview(encode(submission, verdict))
        end = self._end + len(view)
        try:
            while view:
                view = view[self._file.write(view) or 0 :]
        except OSError:
            self._cut(self._end)
            raise
        self._end = end

    def replace(self, rows: Mapping[int, tuple[SubmissionRow, Verdict]]) -> None:
        """Put new rows in the place of old ones; the file changes as a whole.

        Args:
          rows: what to write by its index from 0.
        """
        unfinished = self.path.with_name(self.path.name + ".tmp")
        with self.path.open("rb") as old, unfinished.open("wb") as new:
            for index, line in enumerate(old):
                new.write(encode(*rows[index]) if index in rows else line)
            new.flush()
            os.fsync(new.fileno())
        shutil.copymode(self.path, unfinished)
        os.replace(unfinished, self.path)
        self._file.close()
        self._open()

    def close(self) -> None:
        """Flush to the disk and close; a new file without rows is removed."""
        if self._file.closed:
            return
        os.fsync(self._file.fileno())
        if self._new and self._end == 0:
            self.path.unlink()
        self._file.close()

    def __enter__(self) -> "VerdictFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> None:
        self._file = self.path.open("ab", buffering=0)
        self._end = self._file.seek(0, os.SEEK_END)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise DataError(
                f"Expected no other writer of {self.path}, got one that is running; "
                "wait for its end, or name another file."
            ) from error
        except OSError as error:
            # Some network file systems have no locks; one run needs none.
            _log.warning("%s cannot be locked: %s", self.path, error)

    def _cut(self, end: int) -> None:
        self._file.truncate(end)
        self._end = end

    def _read(
        self, number: int, line: bytes, submission: SubmissionRow
    ) -> tuple[Status, float]:
        """Status and seconds of a row that must be about the submission."""
        expected = f"the verdict on {submission.problem.name}"
        try:
            values = json.loads(line)
            same = values["digest"] == submission.digest()
            status, seconds = Status(values["status"]), float(values["seconds"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise self._foreign(number, expected, line) from error
        if not same:
            raise self._foreign(number, expected, line)
        return status, seconds

    def _foreign(self, number: int, expected: str, line: bytes) -> DataError:
        got = shorten(line.decode(errors="replace").strip())
        return DataError(
            f"{self.path}, line {number}: expected {expected}, got {got}; the file "
            "belongs to another input: name another one, or replace it with "
            "--overwrite."
        )


def encode(submission: SubmissionRow, verdict: Verdict) -> bytes:
    """The line of a verdict, in UTF-8 also where the submission is not Unicode."""
    row = {
        "name": submission.problem.name,
        "digest": submission.digest(),
        **verdict.to_dict(),
    }
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row).encode() + b"\n"
