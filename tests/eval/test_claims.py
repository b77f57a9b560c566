import math

import numpy as np
import pytest

from fdjax.errors import ConfigError
from fdjax.eval import ArmResult, ArmRoles, evaluate_claims

THEOREMS = tuple(f"t{index}" for index in range(40))
KS = (1, 2, 4, 8)


def arm(name, successes, entropy=0.2, missing=0, theorems=THEOREMS):
    successes = np.broadcast_to(successes, len(theorems)).tolist()
    noise = np.linspace(-0.05, 0.05, len(theorems))
    return ArmResult(
        arm=name,
        theorems=theorems,
        samples=8,
        successes=tuple(successes),
        missing=(missing,) * len(theorems),
        distinct_proofs=(0,) * len(theorems),
        policy_entropy=tuple((entropy + noise).tolist()),
    )


def verdicts(*arms, **options):
    claims = evaluate_claims(arms, KS, resamples=2000, **options)
    return {claim.name: claim.verdict for claim in claims}


def by_name(*arms):
    return {claim.name: claim for claim in evaluate_claims(arms, KS, resamples=2000)}


def test_all_claims_shown_when_every_theorem_agrees():
    found = verdicts(
        arm("fd", 2, entropy=0.4),
        arm("grpo", 1, entropy=0.2),
        arm("fd_then_grpo", 3),
        arm("sft_references", 1),
    )
    assert found == {
        "fd_entropy": "shown",
        "fd_large_k": "not shown",  # pass@8 is 1 for both: nothing tells them apart
        "fd_then_grpo_pass_at_1": "shown",
        "fd_then_grpo_mean": "shown",
        "fd_control_pass_at_1": "shown",
        "fd_control_large_k": "not shown",
    }


def test_the_same_arms_exchanged_are_contradicted():
    found = verdicts(
        arm("fd", 1, entropy=0.2),
        arm("grpo", 2, entropy=0.4),
        arm("fd_then_grpo", 0),
        arm("sft_references", 2),
    )
    assert found["fd_entropy"] == "contradicted"
    assert found["fd_then_grpo_pass_at_1"] == "contradicted"
    assert found["fd_then_grpo_mean"] == "contradicted"
    assert found["fd_control_pass_at_1"] == "contradicted"


def test_noise_around_zero_is_not_shown():
    # Reversing the theorems keeps the means and makes every pair differ.
    successes = np.random.default_rng(4).integers(0, 3, size=40)
    entropy = np.linspace(0.1, 0.3, 40)
    found = verdicts(
        arm("fd", successes, entropy), arm("grpo", successes[::-1], entropy[::-1])
    )
    assert found["fd_entropy"] == "not shown"
    assert found["fd_large_k"] == "not shown"


def test_difference_and_interval_at_the_largest_k():
    # pass@8 of 8 samples is 1 where anything succeeded: FD solves 30, GRPO 10 of 40.
    fd = arm("fd", np.arange(40) < 30)
    grpo = arm("grpo", np.arange(40) < 10)
    claim = by_name(fd, grpo)["fd_large_k"]
    assert claim.statement.startswith("pass@8")
    assert claim.difference == pytest.approx(20 / 40)
    # 20 of 40 differ by one: standard error sqrt(0.5 * 0.5 / 40) = 0.079.
    assert claim.low == pytest.approx(0.5 - 1.96 * 0.079, abs=0.03)
    assert claim.high == pytest.approx(0.5 + 1.96 * 0.079, abs=0.03)
    assert claim.verdict == "shown"
    assert "0.750 against 0.250" in claim.detail
    assert (
        by_name(arm("fd", np.arange(40) < 10), arm("grpo", np.arange(40) < 30))[
            "fd_large_k"
        ].verdict
        == "contradicted"
    )


def test_both_comparisons_are_needed():
    # Better than GRPO on every theorem, but worse than FD.
    claim = by_name(arm("fd", 4), arm("grpo", 1), arm("fd_then_grpo", 2))[
        "fd_then_grpo_pass_at_1"
    ]
    assert claim.verdict == "contradicted"
    assert claim.difference == pytest.approx(2 / 8 - 4 / 8)  # the deciding comparison
    assert "fd_then_grpo against grpo: 0.250 against 0.125" in claim.detail

    mixed = np.arange(40) % 9
    claim = by_name(arm("fd", mixed[::-1]), arm("grpo", 0), arm("fd_then_grpo", mixed))[
        "fd_then_grpo_pass_at_1"
    ]
    assert claim.verdict == "not shown"
    assert claim.low < 0 < claim.high


def test_few_differing_theorems_decide_nothing():
    # Five theorems of forty, all in favour: a sign test gives p = 0.0625.
    five = by_name(arm("fd", np.arange(40) < 5), arm("grpo", 0))["fd_large_k"]
    assert five.verdict == "not shown"
    assert "at least 6" in five.detail
    six = by_name(arm("fd", np.arange(40) < 6), arm("grpo", 0))["fd_large_k"]
    assert six.verdict == "shown"


def test_at_least_allows_an_interval_that_touches_zero():
    # A level so high that draws without any differing theorem set the lower end.
    fd, other = np.arange(40) < 7, np.zeros(40, int)
    claims = evaluate_claims(
        [arm("fd", fd), arm("grpo", other), arm("sft_references", other)],
        KS,
        level=0.9999,
        resamples=20_000,
    )
    found = {claim.name: claim for claim in claims}
    assert found["fd_large_k"].low == found["fd_control_large_k"].low == 0.0
    assert found["fd_large_k"].verdict == "shown"
    assert found["fd_control_large_k"].verdict == "not shown"


def test_claims_without_their_arms_are_left_out():
    assert verdicts(arm("fd", 1)) == {}
    assert set(verdicts(arm("fd", 2), arm("grpo", 1))) == {"fd_entropy", "fd_large_k"}
    roles = ArmRoles(fd="distilled", grpo="baseline")
    assert set(verdicts(arm("distilled", 2), arm("baseline", 1), roles=roles)) == {
        "fd_entropy",
        "fd_large_k",
    }


def test_only_shared_theorems_are_compared():
    # GRPO alone was run on an easy half that would have decided the comparison.
    fd = arm("fd", 2, theorems=THEOREMS[:20])
    grpo = arm("grpo", np.where(np.arange(40) < 20, 1, 8))
    claim = by_name(fd, grpo, arm("fd_then_grpo", 8))["fd_then_grpo_pass_at_1"]
    assert "1.000 against 0.250" in claim.detail
    claim = by_name(fd, grpo)["fd_entropy"]
    assert "20 theorems" in claim.detail


def test_unmeasured_comparison_is_not_shown():
    # With a missing sample everywhere, pass@8 of 8 has no unbiased estimate.
    claim = by_name(arm("fd", 2, missing=1), arm("grpo", 1))["fd_large_k"]
    assert claim.verdict == "not shown"
    assert math.isnan(claim.difference)
    assert "no theorem measured" in claim.detail


def test_no_k_is_refused():
    with pytest.raises(ConfigError, match="at least one k"):
        evaluate_claims([], [])
