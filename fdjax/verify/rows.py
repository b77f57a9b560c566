"""Submissions and verdicts as JSON lines, in files of any length."""

import fcntl
import hashlib
import json
import logging
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fdjax.encoding import as_float, decode, encode, spellings
from fdjax.errors import DataError
from fdjax.files import replacing
from fdjax.jsonl import LineFile, Row, iterate_rows, shorten
from fdjax.lean.facts.backend import Submission, WholeFile
from fdjax.lean.facts.statement import statement_of
from fdjax.lean.facts.verdict import Status, Verdict
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

    @property
    def crashed(self) -> int:
        """Verdicts that decide nothing."""
        return self.statuses[Status.CRASHED]

    @property
    def decided(self) -> int:
        """The other verdicts."""
        return self.rows - self.crashed

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

    A row holds `name`, `statement` (one theorem, ends before `:=`), either `proof`
    (tactic text) or `source` (a whole file), and may hold `header`. A null is as good
    as no key, other keys are ignored, and blank lines are skipped.

    Raises:
      DataError: the file cannot be read, or a row is not as described.
    """
    return map(_submission, iterate_rows(path))


def _submission(row: Row) -> SubmissionRow:
    given = {key: value for key, value in row.values.items() if value is not None}
    if ("proof" in given) == ("source" in given):
        raise row.error(
            "either `proof` (tactic text) or `source` (a whole file)",
            f"values for {shorten(str(sorted(given)))}",
            "give one of the two",
        )
    key = "proof" if "proof" in given else "source"
    body = given[key]
    # An empty submission is one that fails, not a fault of the file.
    if not isinstance(body, str):
        raise row.error(
            f"text for `{key}`", shorten(repr(body)), "write it as a JSON string"
        )
    problem = Problem(
        name=row.text("name", required=True),
        statement=statement_of(row),
        header=row.text("header"),
    )
    return SubmissionRow(
        problem=problem, submission=body if key == "proof" else WholeFile(body)
    )


class VerdictFile:
    """A JSON lines file of verdicts, one for each submission and in the same order.

    A row is `name`, `digest` (of the submission) and the fields of a verdict. A run
    that is killed leaves at most half a line at the end. The file is locked against
    other writers while it is open. Every method raises `DataError` when the file cannot
    be read or written.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, with its folder if need be; nothing in it changes yet.

        Args:
          path: the JSON lines file; made when it does not exist.

        Raises:
          DataError: it is no regular file, or another process writes it.
        """
        self.path = path.resolve()
        with self._accessible():
            self._new = not self.path.exists()
            if not self._new and not self.path.is_file():
                raise DataError(
                    f"Expected a file for verdicts at {path}, got something else; "
                    "name a file that can be written and read."
                )
            self._made = [each for each in self.path.parents if not each.exists()]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lines = self._open(self.path)

    def check(self, submissions: Iterable[SubmissionRow]) -> Standing:
        """Read all submissions and compare them with the rows that are there.

        Half a line at the file's end is cut off, if it may be one of ours.

        Raises:
          DataError: the file holds something else; it stays as it was.
        """
        total = whole = 0
        tally, crashed = Tally(), array("q")
        with self._accessible(), self.path.open("rb") as file:
            for total, submission in enumerate(submissions, start=1):
                line = file.readline()
                if not line.endswith(b"\n"):
                    # It was on its way when the writer was killed, or there is none.
                    if line and not _may_begin(line, submission):
                        raise self._foreign(total, _about(submission), line)
                    continue
                whole += len(line)
                status, seconds = self._read(total, line, submission)
                tally.add(status, seconds)
                if not status.decided:
                    crashed.append(total - 1)
            if line := file.readline():
                raise self._foreign(total + 1, "no more rows than the input's", line)
        self._cut(whole)
        return Standing(total=total, tally=tally, crashed=crashed)

    def clear(self) -> None:
        """Remove all rows."""
        self._cut(0)

    def append(self, submission: SubmissionRow, verdict: Verdict) -> None:
        """Write the next row; all of it or, when that fails, nothing."""
        with self._accessible():
            self._lines.append(line_of(submission, verdict))

    def replace(self, rows: Mapping[int, tuple[SubmissionRow, Verdict]]) -> None:
        """Put new rows in the place of old ones; the file changes as a whole or not.

        Args:
          rows: what to write by its index from 0.
        """
        with self._accessible(), ExitStack() as undo:
            with replacing(self.path) as new:
                with self.path.open("rb") as old:
                    for index, line in enumerate(old):
                        new.write(line_of(*rows[index]) if index in rows else line)
                new.flush()
                # Locked before anybody sees it.
                lines = undo.enter_context(self._open(Path(new.name)))
            undo.pop_all()
            replaced, self._lines = self._lines, lines
            replaced.close()

    def close(self) -> None:
        """Flush and close; a new file without rows goes, and folders made for it."""
        if self._lines.closed:
            return
        with self._accessible(), self._lines:
            if self._new and self._lines.size == 0:
                self.path.unlink()
                # Somebody else may have begun to use a folder.
                with suppress(OSError):
                    for folder in self._made:
                        folder.rmdir()

    def __enter__(self) -> "VerdictFile":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @contextmanager
    def _accessible(self) -> Iterator[None]:
        """The system's refusals with a remedy."""
        try:
            yield
        except OSError as error:
            raise DataError(
                f"Expected to read and write verdicts at {self.path}, got {error}; "
                "free disk space, lift the limit on file sizes, or name a file in a "
                "folder where you may write."
            ) from error

    def _open(self, path: Path) -> LineFile:
        """The file at its end, locked."""
        file = LineFile(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise DataError(
                f"Expected no other writer of {self.path}, got one that is running; "
                "wait for its end, or name another file."
            ) from error
        except OSError as error:
            # Some network file systems have no locks; one run needs none.
            _log.warning("%s cannot be locked: %s", path, error)
        return file

    def _cut(self, end: int) -> None:
        with self._accessible():
            self._lines.cut(end)

    def _read(
        self, number: int, line: bytes, submission: SubmissionRow
    ) -> tuple[Status, float]:
        """Status and seconds of a row that must be about the submission."""
        expected = _about(submission)
        try:
            values = decode(line)
            same = values["digest"] == submission.digest()
            status, seconds = Status(values["status"]), as_float(values["seconds"])
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


def line_of(submission: SubmissionRow, verdict: Verdict) -> bytes:
    """The line of a verdict."""
    return encode({**_key(submission), **verdict.to_dict()})


def _key(submission: SubmissionRow) -> dict[str, str]:
    """How a row begins."""
    return {"name": submission.problem.name, "digest": submission.digest()}


def _may_begin(half: bytes, submission: SubmissionRow) -> bool:
    """Whether half a line can be what a killed writer left of the submission's row."""
    begins = [line.removesuffix(b"}\n") for line in spellings(_key(submission))]
    return any(half.startswith(begin) or begin.startswith(half) for begin in begins)


def _about(submission: SubmissionRow) -> str:
    return f"the verdict on {submission.problem.name}"
