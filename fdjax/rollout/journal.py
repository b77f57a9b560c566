"""What is known of groups, on disk until a checkpoint has passed them."""

import asyncio
import base64
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fdjax.errors import DataError
from fdjax.feedback import Attempt, Feedback, Kind, attempt_row
from fdjax.jsonl import LineFile, row_of
from fdjax.judge import Judgement
from fdjax.records import Problem
from fdjax.rollout.codec import decode_group, encode_group
from fdjax.rollout.facts import feedback_of, judgement_of, to_json
from fdjax.rollout.trajectory import Trajectory

__all__ = ["Journal", "Page"]

_log = logging.getLogger(__name__)

Fact = TypeVar("Fact", Judgement, Feedback)
Found = TypeVar("Found")

_KEY = "key"
_END = "end"
"""Key of the row behind the groups of a rollout that was finished."""

_SETTLED = frozenset(
    {
        Kind.EMPTY,
        Kind.REFUSAL,
        Kind.CUT,
        Kind.UNANSWERED,
        Kind.INVALID,
        Kind.UNRECORDED,
        Kind.LEAK,
    }
)
"""Failures that the same question would meet again, or that were paid for."""


class Journal:
    """Keeps a killed run from having groups judged, and feedback bought, twice.

    What judge and writer say of a group is a row in the file of its rollout,
    `<phase>/<number>.<part>.jsonl`, and on the disk before it is used. When the rollout
    is collected again, groups with the same attempts are not judged and not written on
    again. By default attempts are sampled again, all of them: so each is in the same
    company on the devices as the first time, and its log-probabilities are the same to
    the last bit. On request the attempts of finished groups are kept, too.

    In a rollout that was not finished, groups are asked about again where something
    failed that may not fail another time: a dead checker, a server without room. In a
    finished one everything stays as it was, a `TIMEOUT` or `CRASHED` too.

    A process that is killed leaves at most half a row, which is cut off. Where the disk
    refuses a row, the run goes on without it, and the log says so.
    """

    def __init__(self, folder: Path, *, settings: str = "", part: int = 0) -> None:
        """Nothing is read or made yet.

        Args:
          folder: of the journal alone; made where it is not there.
          settings: digest of what decides what judge and writer say. Rows of other
            settings do not count.
          part: number of this process among those that write side by side. Each has
            files of its own and reads all of them; the first drops them.
        """
        self._folder = folder
        self._settings = settings
        self._part = part

    def page(self, phase: str, number: int, *, attempts: bool = False) -> "Page":
        """What is known of a rollout, and where more of it is kept.

        Args:
          phase: name of a folder.
          number: of the rollout in its phase.
          attempts: whether groups are kept as they were sampled, too.
        """
        folder = self._folder / phase
        path = folder / f"{number}.{self._part}.jsonl"
        files = sorted(folder.glob(f"{number}.*.jsonl"))
        return Page(path, files, self._settings, attempts=attempts)

    def passed(self, phase: str, number: int | None = None) -> None:
        """Drops rollouts that a checkpoint holds.

        Args:
          phase: that they are of.
          number: of the first that stays; None drops all.
        """
        if self._part:
            return
        folder = self._folder / phase
        for path in folder.glob("*.*.jsonl"):
            one = path.name.partition(".")[0]
            if number is None or (one.isdecimal() and int(one) < number):
                path.unlink(missing_ok=True)
        for empty in (folder, self._folder):
            with contextlib.suppress(OSError):
                empty.rmdir()


class Page:
    """The groups of one rollout in a `Journal`."""

    def __init__(
        self, path: Path, files: Sequence[Path], settings: str, *, attempts: bool
    ) -> None:
        """Reads what is known.

        Args:
          path: where more is kept.
          files: of all processes, perhaps this one's.
          settings: see `Journal`.
          attempts: see `Journal.page`.
        """
        self._path = path
        self._attempts = attempts
        self._settings = settings
        self._known: dict[str, list[Any]] = {}
        self._open = False
        """Whether rows were added behind which no end is noted."""
        for file in files:
            # Of a question that was asked anew the last answer counts.
            rows = _counting(file)
            self._known |= {row[_KEY]: row["found"] for row in rows}

    def sampled(self, question: Sequence[Any], problem: Problem) -> list[Trajectory]:
        """A group as it was sampled; empty where that is not known.

        Args:
          question: all that decides what is sampled.
          problem: that the attempts are at.
        """
        if not self._attempts:
            return []

        def read(text: str) -> list[Trajectory]:
            return decode_group(base64.b64decode(text), problem)

        return next(iter(self._found(_key_of(question), read)), [])

    async def keep(self, question: Sequence[Any], group: Sequence[Trajectory]) -> None:
        """Keeps a group as it was sampled, where that is asked for."""
        if self._attempts:
            text = base64.b64encode(encode_group(group)).decode()
            settled = all(each.episode.ended != "lost" for each in group)
            row = {_KEY: _key_of(question), "settled": settled, "found": [text]}
            await self._append(row)

    async def judgements(
        self,
        place: int,
        attempts: Sequence[tuple[Problem, str]],
        ask: Callable[[], Awaitable[Sequence[Judgement]]],
    ) -> Sequence[Judgement]:
        """What the judge said of a group, or says when it is asked now.

        Args:
          place: of the group in the rollout: others may hold the same attempts.
          attempts: problem and text of each.
          ask: asks it.
        """
        return await self._once(
            ("judgement", place, list(attempts)),
            ask,
            size=len(attempts),
            read=judgement_of,
            settled=lambda judgement: not judgement.missing,
        )

    async def feedback(
        self,
        place: int,
        attempts: Sequence[Attempt],
        ask: Callable[[], Awaitable[Sequence[Feedback]]],
    ) -> Sequence[Feedback]:
        """What the writer said of a group, or says when it is asked now.

        Args:
          place: of the group in the rollout.
          attempts: with what the judge said of them.
          ask: asks it.
        """
        return await self._once(
            ("feedback", place, [attempt_row(attempt) for attempt in attempts]),
            ask,
            size=len(attempts),
            read=feedback_of,
            settled=lambda note: note.available or note.kind in _SETTLED,
        )

    def end(self) -> None:
        """Notes that the rollout is finished, where something was added."""
        if not self._open:
            return
        self._open = False
        try:
            with self._file() as file:
                file.append(to_json({_KEY: _END}) + b"\n")
        except OSError as error:
            _log.error("The end of %s is not noted: %s", self._path, error)

    async def _once(
        self,
        question: Sequence[Any],
        ask: Callable[[], Awaitable[Sequence[Fact]]],
        *,
        size: int,
        read: Callable[[Mapping[str, Any]], Fact],
        settled: Callable[[Fact], bool],
    ) -> Sequence[Fact]:
        """What was found out about `size` attempts, before or now."""
        key = _key_of([self._settings, *question])
        if found := self._found(key, read):
            return found
        found = await ask()
        if len(found) == size:
            row = {_KEY: key, "settled": all(map(settled, found)), "found": list(found)}
            await self._append(row)
        return found

    def _found(self, key: str, read: Callable[[Any], Found]) -> list[Found]:
        """The facts under a key; none where they cannot be read."""
        try:
            return [read(fact) for fact in self._known.get(key, ())]
        except (DataError, KeyError, TypeError, ValueError) as error:
            _log.warning("%s: a row is of another version: %r", self._path, error)
            return []

    async def _append(self, row: Mapping[str, Any]) -> None:
        """Writes a row while others go on; it is on the disk when this returns."""
        try:
            line = to_json(row) + b"\n"
            file = self._file()
            try:
                file.append(line)
                self._open = True
            finally:
                await asyncio.to_thread(file.close)
        except (OSError, DataError) as error:
            _log.error("A finished group is used, but not kept: %s", error)

    def _file(self) -> LineFile:
        """The file, without half a row at its end."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = LineFile(self._path)
        if file.size and not self._open:
            # Its writer may have been killed.
            file.cut(self._path.read_bytes().rfind(b"\n") + 1)
        return file


def _key_of(question: Sequence[Any]) -> str:
    return hashlib.sha256(to_json(question)).hexdigest()


def _counting(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that count: all of a finished rollout, or what is settled."""
    before_end: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines(keepends=True):
        row = row_of(line, (_KEY,))
        if row is None:
            _log.warning("%s: %r… is no row of a journal", path, line[:60])
        elif row[_KEY] == _END:
            before_end, rows = before_end + rows, []
        else:
            rows.append(row)
    return before_end + [row for row in rows if row["settled"]]
