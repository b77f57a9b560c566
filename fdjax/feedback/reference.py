"""A hint from a known proof: what a language model that has read it would write."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fdjax.feedback.compiler import CompilerFeedback
from fdjax.feedback.writer import Attempt, Feedback, Writer
from fdjax.feedback.writing import aclose_all
from fdjax.ranges import Whole, require_fields

__all__ = ["ReferenceHint"]


@dataclass(frozen=True, kw_only=True)
class ReferenceHint:
    """Adds to another writer's feedback the next step of the closest reference.

    The hint names the tactic at the first line where the attempt leaves the reference
    that it follows longest. It carries one step, not the proof.
    """

    base: Writer = field(default_factory=CompilerFeedback)
    """Writes the part that needs no reference."""
    plan: int = 0
    """How many of the tactics after the hinted one to name, without arguments."""

    def __post_init__(self) -> None:
        require_fields(self, plan=Whole(0))

    async def write(self, group: Sequence[Attempt]) -> list[Feedback]:
        """Feedback on each attempt, in order (`Writer`)."""
        return [
            self._with_hint(attempt, feedback)
            for attempt, feedback in zip(
                group, await self.base.write(group), strict=True
            )
        ]

    async def aclose(self) -> None:
        """Close the other writer."""
        await aclose_all([self.base])

    def _with_hint(self, attempt: Attempt, feedback: Feedback) -> Feedback:
        references = attempt.problem.references
        passed = attempt.judgement.passed
        if not feedback.available or passed or not references:
            return feedback
        steps = _steps(attempt.proof)
        best = max(
            (_steps(reference) for reference in references),
            key=lambda reference: (_shared(steps, reference), -len(reference)),
        )
        at = _shared(steps, best)
        if at == len(best):
            hint = f"hint: stop after line {at}"
        else:
            hint = f"hint at line {at + 1}: {best[at]}"
        parts = [hint, *feedback.parts]
        following = [step.split()[0] for step in best[at + 1 :]][: self.plan]
        if following:
            parts.append("then: " + " ".join(following))
        offset = _divergence(attempt.proof, best[: at + 1])
        if feedback.offset is not None:
            offset = min(offset, feedback.offset)
        return replace(feedback, parts=tuple(parts), offset=offset)


def _steps(proof: str) -> list[str]:
    return [line.strip() for line in proof.splitlines() if line.strip()]


def _divergence(proof: str, steps: list[str]) -> int:
    """Characters of `proof` that agree with `steps`, indentation and blanks aside."""
    end = 0
    for step in steps:
        start = end + len(proof[end:]) - len(proof[end:].lstrip())
        end = start + _shared(proof[start:], step)
        if end < start + len(step):
            break
    return end


def _shared(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Length of the common prefix."""
    count = 0
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            break
        count += 1
    return count
