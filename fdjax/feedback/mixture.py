"""Several writers as one: each attempt to one of them, or all of them on each."""

import hashlib
import json
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Literal

from fdjax.errors import ConfigError
from fdjax.feedback.writer import Attempt, Feedback, Writer
from fdjax.feedback.writing import aclose_all, write_all
from fdjax.ranges import FLAG, SEED, Among, require_fields

__all__ = ["Joined", "Mixture"]


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Gives each attempt to one of several writers, at random by its content.

    The same attempt goes to the same writer, in whatever order and on whichever host.
    """

    writers: tuple[Writer, ...]
    """Who may write."""
    weights: tuple[float, ...]
    """How often each does, in proportion."""
    unit: Literal["attempt", "group"] = "attempt"
    """What is given to one writer: an attempt, or a group as a whole. A writer that
    compares the attempts of a group needs the second."""
    seed: int = 0
    """Another seed, other choices."""

    def __post_init__(self) -> None:
        require_fields(self, unit=Among("attempt", "group"), seed=SEED)
        if len(self.writers) != len(self.weights) or not self.writers:
            raise ConfigError(
                f"expected a weight for each writer of a Mixture, got "
                f"{len(self.writers)} writers and {len(self.weights)} weights"
            )
        usable = all(0 <= weight < float("inf") for weight in self.weights)
        if not usable or not sum(self.weights):
            raise ConfigError(
                "expected Mixture.weights of at least 0, some above it, got "
                f"{self.weights}"
            )

    async def write(self, group: Sequence[Attempt]) -> list[Feedback]:
        """Feedback on each attempt, in order (`Writer`)."""
        if self.unit == "group":
            choices = [self._choice(group)] * len(group)
        else:
            choices = [self._choice([attempt]) for attempt in group]
        parts = {
            choice: [row for row, chosen in enumerate(choices) if chosen == choice]
            for choice in sorted(set(choices))
        }
        written = await write_all(
            (self.writers[choice], [group[row] for row in rows])
            for choice, rows in parts.items()
        )
        notes = {
            row: note
            for rows, part in zip(parts.values(), written, strict=True)
            for row, note in zip(rows, part, strict=True)
        }
        return [notes[row] for row in range(len(group))]

    async def aclose(self) -> None:
        """Close the writers."""
        await aclose_all(self.writers)

    def _choice(self, attempts: Sequence[Attempt]) -> int:
        problem = attempts[0].problem if attempts else None
        content = [
            self.seed,
            problem and [problem.name, problem.header, problem.statement],
            [attempt.text for attempt in attempts],
        ]
        digest = hashlib.sha256(json.dumps(content).encode()).digest()
        bounds = list(accumulate(self.weights))
        # 53 bits: a float in [0, 1) of which each is as likely as the others.
        drawn = (int.from_bytes(digest[:8], "big") >> 11) / 2**53
        return bisect(bounds, drawn * bounds[-1], hi=len(bounds) - 1)


@dataclass(frozen=True, kw_only=True)
class Joined:
    """All of several writers on every attempt: their parts one after the other."""

    writers: tuple[Writer, ...]
    """Who writes; the most important first, since what does not fit is cut at the
    end."""
    partial: bool = False
    """Whether an attempt keeps the parts that are there when a writer has failed.
    Otherwise it has no feedback: what the teacher reads is of one kind."""

    def __post_init__(self) -> None:
        require_fields(self, partial=FLAG)
        if not self.writers:
            raise ConfigError("expected writers in Joined, got none: name at least one")

    async def write(self, group: Sequence[Attempt]) -> list[Feedback]:
        """Feedback on each attempt, in order (`Writer`)."""
        columns = await write_all((writer, group) for writer in self.writers)
        return [self._join(notes) for notes in zip(*columns, strict=True)]

    async def aclose(self) -> None:
        """Close the writers."""
        await aclose_all(self.writers)

    def _join(self, notes: Sequence[Feedback]) -> Feedback:
        usage = sum((note.usage for note in notes[1:]), notes[0].usage)
        failed = [note for note in notes if note.error is not None]
        if failed and (len(failed) == len(notes) or not self.partial):
            return Feedback(error=failed[0].error, kind=failed[0].kind, usage=usage)
        said = [note for note in notes if note.error is None]
        offsets = [note.offset for note in said if note.offset is not None]
        # Two writers may say the same, such as that a proof is complete.
        texts = dict.fromkeys(note.parts for note in said)
        return Feedback(
            parts=tuple(chain.from_iterable(texts)),
            offset=min(offsets, default=None),
            usage=usage,
        )
