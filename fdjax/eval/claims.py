"""The paper's claims, decided by paired bootstrap intervals over theorems.

Each claim compares arms on the same theorems and gets its verdict from the interval
of the mean paired difference, nothing else. The interval covers the choice of
theorems; `fdjax.eval.seeds` pools runs with other seeds to cover training noise.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from fdjax.errors import ConfigError
from fdjax.eval.arms import ArmResult, common_theorems
from fdjax.eval.passk import UNMEASURED, Estimate, paired_difference

__all__ = ["ArmRoles", "Claim", "ClaimVerdict", "evaluate_claims"]

ClaimVerdict = Literal["shown", "not shown", "contradicted"]

# A sign test over fewer than six differing theorems cannot reach 5 % on two sides
# (2 · 2⁻⁵ = 6.25 %), whatever the bootstrap says of so few values.
MINIMUM_DIFFERING = 6

_WORST_FIRST: tuple[ClaimVerdict, ...] = ("contradicted", "not shown", "shown")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement about the arms, with the numbers that decide it."""

    name: str
    """Short stable name."""
    statement: str
    """What is claimed, with the statistic that decides it."""
    difference: float
    """Mean paired difference over theorems; NaN when nothing could be compared."""
    low: float
    """Lower end of the interval of the difference."""
    high: float
    """Upper end of the interval of the difference."""
    verdict: ClaimVerdict
    """shown: the interval lies on the claimed side; contradicted: wholly below 0."""
    detail: str
    """Means of the arms, theorems compared, and what limits the verdict."""


@dataclass(frozen=True, kw_only=True)
class ArmRoles:
    """Which arm plays which part; a claim whose arms are absent is left out."""

    fd: str = "fd"
    """Feedback Distillation alone."""
    grpo: str = "grpo"
    """GRPO alone."""
    fd_then_grpo: str = "fd_then_grpo"
    """GRPO started from the FD checkpoint."""
    control: str = "sft_references"
    """SFT on the reference proofs that the feedback was made from."""


class Question(NamedTuple):
    """A claim before its data: `first` against each of `others`."""

    name: str
    statement: str
    first: str
    others: tuple[str, ...]
    measure: Callable[[ArmResult], np.ndarray]
    strict: bool
    """Whether a difference of zero is not enough."""


class Comparison(NamedTuple):
    """One arm against one other."""

    estimate: Estimate
    verdict: ClaimVerdict
    detail: str


def evaluate_claims(
    arms: Sequence[ArmResult],
    ks: Sequence[int],
    roles: ArmRoles | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[Claim, ...]:
    """Decide the paper's claims for the arms that are present.

    With d the paired difference over the theorems that the arms share:

    - `fd_entropy`: policy entropy (nats per token) of FD above GRPO's; shown if
      low > 0.
    - `fd_large_k`: pass@K of FD at least GRPO's, K the largest of `ks`; shown if
      low ≥ 0.
    - `fd_then_grpo_pass_at_1`, `fd_then_grpo_mean`: pass@1, and the mean of pass@k
      over `ks`, of FD→GRPO at least those of FD *and* of GRPO; a comparison is
      shown if low ≥ 0. The claim is shown if both comparisons are and contradicted
      if either is; its numbers are those of the comparison that decides.
    - `fd_control_pass_at_1`, `fd_control_large_k`: pass@1 and pass@K of FD above SFT
      on the references; shown if low > 0. Where they are not, the content of the
      references may explain FD's gain.

    A comparison is contradicted if high < 0, and not shown while fewer than six
    theorems tell the arms apart. Testing several claims is not corrected for.

    Args:
      arms: evaluation results; arms without a role are ignored.
      ks: values of k that were evaluated, each at least 1.
      roles: names of the arms; the defaults of `ArmRoles` when None.
      level: coverage of the intervals, between 0 and 1.
      resamples: bootstrap draws of each interval.
      seed: seed of the draws.

    Returns:
      The claims that the arms present allow to decide, in the order above.

    Raises:
      ConfigError: `ks` is empty.
    """
    named = {arm.arm: arm for arm in arms}

    def compare(question: Question, other: str) -> Comparison:
        first, second = named[question.first], named[other]
        return _compare(question, first, second, level, resamples, seed)

    return decide(named, ks, roles, compare)


def decide(
    arms: Collection[str],
    ks: Sequence[int],
    roles: ArmRoles | None,
    compare: Callable[[Question, str], Comparison],
) -> tuple[Claim, ...]:
    """The claims that the arms present allow to decide, each by its worst comparison.

    Args:
      arms: names of those present.
      ks: values of k that were evaluated.
      roles: names of the arms; the defaults of `ArmRoles` when None.
      compare: the first arm of a question against another.

    Raises:
      ConfigError: `ks` is empty.
    """
    if not ks:
        raise ConfigError("expected at least one k to decide claims at, got none")
    claims = []
    for question in _questions(roles or ArmRoles(), tuple(ks)):
        if not {question.first, *question.others} <= set(arms):
            continue
        comparisons = [compare(question, other) for other in question.others]
        deciding = min(
            comparisons,
            key=lambda one: (_WORST_FIRST.index(one.verdict), one.estimate.low),
        )
        claims.append(
            Claim(
                name=question.name,
                statement=question.statement,
                difference=deciding.estimate.value,
                low=deciding.estimate.low,
                high=deciding.estimate.high,
                verdict=deciding.verdict,
                detail="; ".join(one.detail for one in comparisons),
            )
        )
    return tuple(claims)


def verdict_of(estimate: Estimate, differing: int, *, strict: bool) -> ClaimVerdict:
    """What an interval of a difference says of the claim that it is above zero.

    Args:
      estimate: the difference.
      differing: problems that tell both sides apart.
      strict: whether a difference of zero is not enough.
    """
    if differing < MINIMUM_DIFFERING:
        return "not shown"
    if estimate.high < 0.0:
        return "contradicted"
    if estimate.low > 0.0 or (estimate.low == 0.0 and not strict):
        return "shown"
    return "not shown"


def _questions(roles: ArmRoles, ks: tuple[int, ...]) -> list[Question]:
    """The claims as arm names and statistics."""
    fd, grpo = roles.fd, roles.grpo
    both, control = roles.fd_then_grpo, roles.control
    largest = max(ks)

    def at_1(arm: ArmResult) -> np.ndarray:
        return arm.pass_at_k(1)

    def at_largest(arm: ArmResult) -> np.ndarray:
        return arm.pass_at_k(largest)

    def mean(arm: ArmResult) -> np.ndarray:
        return arm.mean_pass(ks)

    listed = ", ".join(str(k) for k in ks)
    return [
        Question(
            "fd_entropy",
            f"Policy entropy (nats per token): {fd} > {grpo}",
            fd,
            (grpo,),
            ArmResult.entropy,
            True,
        ),
        Question(
            "fd_large_k",
            f"pass@{largest}, the largest k measured: {fd} ≥ {grpo}",
            fd,
            (grpo,),
            at_largest,
            False,
        ),
        Question(
            "fd_then_grpo_pass_at_1",
            f"pass@1: {both} ≥ {fd} and {both} ≥ {grpo}",
            both,
            (fd, grpo),
            at_1,
            False,
        ),
        Question(
            "fd_then_grpo_mean",
            f"Mean of pass@k over k = {listed}: {both} ≥ {fd} and {both} ≥ {grpo}",
            both,
            (fd, grpo),
            mean,
            False,
        ),
        Question(
            "fd_control_pass_at_1",
            f"Control, pass@1: {fd} > {control}",
            fd,
            (control,),
            at_1,
            True,
        ),
        Question(
            "fd_control_large_k",
            f"Control, pass@{largest}: {fd} > {control}",
            fd,
            (control,),
            at_largest,
            True,
        ),
    ]


def _compare(
    question: Question,
    first: ArmResult,
    second: ArmResult,
    level: float,
    resamples: int,
    seed: int,
) -> Comparison:
    """Compare two arms on the theorems that both measured."""
    theorems = common_theorems([first, second])
    pair = f"{first.arm} against {second.arm}"
    ours = question.measure(first.select(theorems))
    theirs = question.measure(second.select(theorems))
    measured = ~np.isnan(ours - theirs)
    ours, theirs = ours[measured], theirs[measured]
    if not ours.size:
        nothing = f"{pair}: no theorem measured in both"
        return Comparison(UNMEASURED, "not shown", nothing)
    estimate = paired_difference(ours, theirs, level, resamples, seed)
    differing = int(np.sum(ours != theirs))
    low, high = estimate.low, estimate.high
    detail = (
        f"{pair}: {np.mean(ours):.3f} against {np.mean(theirs):.3f}, difference "
        f"{estimate.value:+.3f} [{low:+.3f}, {high:+.3f}], {ours.size} theorems, "
        f"{differing} of which differ"
    )
    if differing < MINIMUM_DIFFERING:
        detail += f" (a verdict needs at least {MINIMUM_DIFFERING})"
    verdict = verdict_of(estimate, differing, strict=question.strict)
    return Comparison(estimate, verdict, detail)
