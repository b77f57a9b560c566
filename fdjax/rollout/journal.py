"""What is known of groups, on disk until a checkpoint has passed them."""

import asyncio
import base64
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from typing import Any, TypeVar

from fdjax.errors import DataError, StoreError
from fdjax.feedback import Attempt, Feedback, Kind, attempt_row
from fdjax.jsonl import row_of
from fdjax.judge import Judgement
from fdjax.objects import Place
from fdjax.records import Problem
from fdjax.rollout.codec import decode_group, encode_group
from fdjax.rollout.facts import feedback_of, judgement_of, to_json
from fdjax.rollout.journal_rows import Rows, shelf
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
    `<phase>/<number>.<part>.jsonl`, and on the disk before it is used; in an object
    store, a row is an object. When the rollout is collected again, groups with the same
    attempts are not judged and not written on again. By default attempts are sampled
    again, all of them: so each is in the same company on the devices as the first time,
    and its log-probabilities are the same to the last bit. On request the attempts of
    finished groups are kept, too.

    In a rollout that was not finished, groups are asked about again where something
    failed that may not fail another time: a dead checker, a server without room. In a
    finished one everything stays as it was, a `TIMEOUT` or `CRASHED` too.

    A process that is killed leaves at most half a row, which is cut off. Where the disk
    or the store refuses a row, the run goes on without it, and the log says so.
    """

    def __init__(self, folder: Place, *, settings: str = "", part: int = 0) -> None:
        """Nothing is read or made yet.

        Args:
          folder: of the journal alone, or its address; made where it is not there.
          settings: digest of what decides what judge and writer say. Rows of other
            settings do not count.
          part: number of this process among those that write side by side. Each has
            files of its own and reads all of them; the first drops them.
        """
        self._shelf = shelf(folder)
        self._settings = settings
        self._part = part

    def narrowed(self, settings: str) -> "Journal":
        """The same folder; of its rows count those that these settings decided, too."""
        made = copy(self)
        made._settings = f"{self._settings} {settings}"
        return made

    def page(self, phase: str, number: int, *, attempts: bool = False) -> "Page":
        """What is known of a rollout, and where more of it is kept.

        Args:
          phase: name of a folder.
          number: of the rollout in its phase.
          attempts: whether groups are kept as they were sampled, too.
        """
        place = f"{phase}/{number}"
        try:
            known = self._shelf.read(phase, number)
        except StoreError as error:
            _log.warning("What is known of %s cannot be read: %s", place, error)
            known = []
        rows = self._shelf.rows(phase, number, self._part)
        return Page(place, known, rows, self._settings, attempts=attempts)

    def passed(self, phase: str, number: int | None = None) -> None:
        """Drops rollouts that a checkpoint holds.

        Args:
          phase: that they are of.
          number: of the first that stays; None drops all.
        """
        if self._part:
            return
        try:
            self._shelf.drop(phase, number)
        except StoreError as error:
            _log.warning("The journal keeps what it could drop: %s", error)


class Page:
    """The groups of one rollout in a `Journal`."""

    def __init__(
        self,
        place: str,
        known: Sequence[bytes],
        rows: Rows,
        settings: str,
        *,
        attempts: bool,
    ) -> None:
        """Reads what is known.

        Args:
          place: phase and number, for messages.
          known: rows of each process.
          rows: where more is kept.
          settings: see `Journal`.
          attempts: see `Journal.page`.
        """
        self._place = place
        self._rows = rows
        self._attempts = attempts
        self._settings = settings
        self._known: dict[str, list[Any]] = {}
        self._open = False
        """Whether rows were added behind which no end is noted."""
        for lines in known:
            # Of a question that was asked anew the last answer counts.
            counting = _counting(lines, place)
            self._known |= {row[_KEY]: row["found"] for row in counting}

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

        return next(iter(self._found(self._sampling_key(question), read)), [])

    async def keep(self, question: Sequence[Any], group: Sequence[Trajectory]) -> None:
        """Keeps a group as it was sampled, where that is asked for."""
        if self._attempts:
            text = base64.b64encode(encode_group(group)).decode()
            settled = all(each.episode.ended != "lost" for each in group)
            key = self._sampling_key(question)
            row = {_KEY: key, "settled": settled, "found": [text]}
            await self._append(row)

    def _sampling_key(self, question: Sequence[Any]) -> str:
        return _key_of([self._settings, "attempts", *question])

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
            self._rows.append(to_json({_KEY: _END}) + b"\n")()
        except OSError as error:
            _log.error("The end of %s is not noted: %s", self._place, error)

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
            _log.warning("%s: a row is of another version: %r", self._place, error)
            return []

    async def _append(self, row: Mapping[str, Any]) -> None:
        """Writes a row while others go on; it is durable when this returns."""
        try:
            durable = self._rows.append(to_json(row) + b"\n")
            self._open = True
            await asyncio.to_thread(durable)
        except (OSError, DataError) as error:
            _log.error("A finished group is used, but not kept: %s", error)


def _key_of(question: Sequence[Any]) -> str:
    return hashlib.sha256(to_json(question)).hexdigest()


def _counting(lines: bytes, place: str) -> list[dict[str, Any]]:
    """The rows that count: all of a finished rollout, or what is settled."""
    before_end: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for line in lines.splitlines(keepends=True):
        row = row_of(line, (_KEY,))
        if row is None:
            _log.warning("%s: %r… is no row of a journal", place, line[:60])
        elif row[_KEY] == _END:
            before_end, rows = before_end + rows, []
        else:
            rows.append(row)
    return before_end + [row for row in rows if row["settled"]]
