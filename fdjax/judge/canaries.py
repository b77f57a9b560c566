"""Canaries: proofs whose verdict is known, put to the judge that trains a policy."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fdjax.judge.answer import whole_text
from fdjax.judge.judgement import Judgement
from fdjax.judge.lean import LeanJudge
from fdjax.lean import Status
from fdjax.records import Problem

__all__ = ["CanaryReport", "check_canaries"]

_SUM = "(a b : Nat) : a + b = b + a"
_FALSE = ": (2 : Nat) + 2 = 5"

_CANARIES: tuple[tuple[str, str, str, bool], ...] = (
    ("a proof by tactics", _SUM, "  omega", True),
    (
        "a proof by a term",
        "(a b : Nat) : a + b = b + a",
        "  exact Nat.add_comm a b",
        True,
    ),
    ("a wrong proof", _SUM, "  rfl", False),
    ("a false statement", _FALSE, "  decide", False),
    ("sorry", _FALSE, "  sorry", False),
    ("compiled code as a proof", _FALSE, "  native_decide", False),
)
"""What it is, the statement after its name, the proof, and whether it is one."""


@dataclass(frozen=True, kw_only=True)
class CanaryReport:
    """What became of the canaries; reports of several processes add up."""

    asked: int
    wrong: tuple[str, ...] = ()
    """Those that were decided against what is known, with the reason given."""
    undecided: tuple[str, ...] = ()
    """Those without a verdict in time: an outage, and no wrong verdict."""

    @property
    def wrong_share(self) -> float:
        """Of the canaries that were decided; 0 where none was."""
        decided = self.asked - len(self.undecided)
        return len(self.wrong) / decided if decided else 0.0

    def __add__(self, other: "CanaryReport") -> "CanaryReport":
        return CanaryReport(
            asked=self.asked + other.asked,
            wrong=self.wrong + other.wrong,
            undecided=self.undecided + other.undecided,
        )


async def check_canaries(
    judge: LeanJudge, *, salt: str, header: str = "", deadline_s: float | None = None
) -> CanaryReport:
    """Puts true, false and unsafe proofs to the judge's verifier.

    Args:
      judge: of a run; canaries are put to its verifier as they are, in no format.
      salt: letters, digits and underscores that no earlier call had: verdicts are
        kept, and a known one tells nothing of the verifier as it is now.
      header: of the run's problems.
      deadline_s: seconds for all of them; those that have no verdict then are
        undecided.
    """
    plain = replace(judge, extract=whole_text)
    by_statement: dict[str, list[tuple[str, str, bool]]] = {}
    for what, statement, proof, holds in _CANARIES:
        by_statement.setdefault(statement, []).append((what, proof, holds))
    problems = [
        Problem(
            name=f"canary_{salt}_{number}",
            statement=f"theorem canary_{salt}_{number} {statement}",
            header=header,
        )
        for number, statement in enumerate(by_statement)
    ]
    groups = await asyncio.gather(
        *(
            _judged(plain, [(problem, proof) for _, proof, _ in cases], deadline_s)
            for problem, cases in zip(problems, by_statement.values(), strict=True)
        )
    )
    wrong: list[str] = []
    undecided: list[str] = []
    for cases, judgements in zip(by_statement.values(), groups, strict=True):
        for (what, _, holds), judgement in zip(cases, judgements, strict=True):
            said = f"{what}: {judgement.reason or 'verified'}"
            if _undecided(judgement):
                undecided.append(said)
            elif judgement.passed != holds:
                wrong.append(said)
    return CanaryReport(
        asked=len(_CANARIES), wrong=tuple(wrong), undecided=tuple(undecided)
    )


async def _judged(
    judge: LeanJudge, attempts: list[tuple[Problem, str]], deadline_s: float | None
) -> Sequence[Judgement]:
    limit = asyncio.timeout(deadline_s)
    try:
        async with limit:
            return await judge.judge(attempts)
    except TimeoutError:
        # A backend may raise it for reasons of its own.
        if not limit.expired():
            raise
    late = Judgement(reward=None, reason=f"no verdict within {deadline_s:g} s")
    return [late] * len(attempts)


def _undecided(judgement: Judgement) -> bool:
    verdict = judgement.verdict
    return judgement.missing or (
        verdict is not None and verdict.status is Status.TIMEOUT
    )
