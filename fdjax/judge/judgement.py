"""What a judge says of an answer, and what a judge is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fdjax.errors import DataError
from fdjax.lean import Verdict
from fdjax.records import Problem

__all__ = ["Judge", "Judgement"]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one attempt is worth.

    Raises:
      DataError: the reward is not finite.
    """

    reward: float | None
    """None where nothing was decided: the attempt leaves group statistics, loss and
    normalizer. It is missing, not zero."""
    passed: bool = False
    """Whether it counts as a success in pass@k."""
    answer: str = ""
    """The part of the completion that was judged: tactics, a file, or all of it."""
    start: int = 0
    """Characters of the completion before the answer."""
    answerless: bool = False
    """Whether the completion holds no answer: its thinking or its code does not end, or
    there is none."""
    reason: str = ""
    """One sentence for people, where it failed or was not judged."""
    verdict: Verdict | None = None
    """What Lean said, where Lean judged."""

    def __post_init__(self) -> None:
        if self.reward is not None and not math.isfinite(self.reward):
            raise DataError(
                f"Judgement: expected a finite reward, got {self.reward}; give None "
                "where nothing was decided"
            )

    @property
    def missing(self) -> bool:
        """Whether nothing was decided about the attempt."""
        return self.reward is None

    @classmethod
    def by_lean(
        cls,
        verdict: Verdict,
        answer: str,
        *,
        start: int = 0,
        answerless: bool = False,
    ) -> "Judgement":
        """1 for a verified proof, 0 for one that Lean decided against.

        Where the checker failed or the statement itself is broken, the reward is
        missing.
        """
        return cls(
            reward=None if verdict.missing else float(verdict.verified),
            passed=verdict.verified,
            answer=answer,
            start=start,
            answerless=answerless,
            reason=verdict.reason,
            verdict=verdict,
        )


@runtime_checkable
class Judge(Protocol):
    """Gives rewards. `LeanJudge` asks Lean; a reward need not come from there.

    What goes wrong with an attempt is a judgement without a reward. An exception ends
    the run: raise one only where no later attempt would fare better.
    """

    async def judge(self, attempts: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement for each (problem, completion), in order.

        The attempts are those of one problem; several calls are under way at once, on
        one event loop.
        """
        ...
