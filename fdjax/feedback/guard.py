"""Feedback that must not give a known proof away."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from fdjax.feedback.failure import Kind
from fdjax.feedback.known import known_proofs
from fdjax.feedback.leak import LeakMeasure
from fdjax.feedback.writer import Attempt, Feedback, Writer
from fdjax.feedback.writing import aclose_all
from fdjax.ranges import Among, Number, require_fields

__all__ = ["LeakGuard"]


@dataclass(frozen=True, kw_only=True)
class LeakGuard:
    """Measures what another writer gives away of known proofs, and acts on it.

    Known are the problem's references and the proofs among the attempts of the group.
    Feedback on an attempt that passed is left alone: its proof is known to its author.
    """

    writer: Writer
    """Writes the feedback."""
    action: Literal["measure", "strip", "refuse"] = "strip"
    """What to do with feedback that gives too much away: nothing, leave out the lines
    that hold a run of a known proof, or have no feedback."""
    most: float = 0.2
    """How much is not too much: the largest `Leak.new_share`, from 0 to 1."""
    measure: LeakMeasure = field(default_factory=LeakMeasure)
    """What counts as a run."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            action=Among("measure", "strip", "refuse"),
            most=Number(least=0, most=1),
        )

    async def write(self, group: Sequence[Attempt]) -> list[Feedback]:
        """Feedback on each attempt, in order (`Writer`)."""
        proofs = known_proofs(group)
        notes = await self.writer.write(group)
        return [
            self._guarded(attempt, note, proofs)
            for attempt, note in zip(group, notes, strict=True)
        ]

    async def aclose(self) -> None:
        """Close the writer."""
        await aclose_all([self.writer])

    def _guarded(
        self, attempt: Attempt, note: Feedback, proofs: Sequence[str]
    ) -> Feedback:
        if note.error is not None or attempt.judgement.passed:
            return note
        if not proofs:
            return note
        attempted = attempt.proof
        leak = self.measure(note.text, proofs=proofs, attempt=attempted)
        note = replace(note, leak=leak)
        if leak.new_share <= self.most or self.action == "measure":
            return note
        if self.action == "refuse":
            what = f"{leak.new_share:.0%} of a known proof, more than {self.most:.0%}"
            return _withheld(note, what)
        return self._stripped(note, proofs, attempted)

    def _stripped(
        self, note: Feedback, proofs: Sequence[str], attempt: str
    ) -> Feedback:
        """The note without the lines that tell; what follows them moves together."""
        lines = note.text.split("\n")
        count = len(lines)
        while found := self.measure.lines(
            "\n".join(lines), proofs=proofs, attempt=attempt
        ):
            # Lines that were apart may now make a run.
            lines = [line for row, line in enumerate(lines) if row not in found]
        if not "".join(lines).strip():
            what = "nothing is left without the lines that tell a known proof"
            return _withheld(note, what)
        return replace(note, parts=tuple(lines), stripped_lines=count - len(lines))


def _withheld(note: Feedback, why: str) -> Feedback:
    """No feedback at all, with the leak and the cost of this."""
    failed = Feedback.failed(Kind.LEAK, why, usage=note.usage)
    return replace(failed, offset=note.offset, leak=note.leak)
