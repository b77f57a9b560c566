import math

import numpy as np
import pytest

from fdjax.errors import ConfigError, DataError
from fdjax.eval import (
    ArmResult,
    crossed_interval,
    evaluate_claims,
    pooled_claims,
    seeds_claim,
)


def test_one_seed_is_a_bootstrap_over_problems():
    """Of the mean of 0s and 1s: a binomial count, whose quantiles are known."""
    values = np.array([[1.0] * 8 + [0.0] * 8])
    estimate = crossed_interval(values, resamples=20_000)
    assert estimate.value == 0.5
    # Binomial(16, 1/2): P(X ≤ 3) = 0.0106, P(X ≤ 4) = 0.0384; so 4/16 and 12/16.
    assert (estimate.low, estimate.high) == (0.25, 0.75)


def test_seeds_that_differ_widen_the_interval_however_many_problems():
    """Each of two seeds is constant: their mean is −1, 0 or 1 as 1 : 2 : 1."""
    values = np.array([[-1.0], [1.0]]) + np.zeros((2, 500))
    assert crossed_interval(values) == pytest.approx((0.0, -1.0, 1.0))


def test_variance_is_that_of_both_ways_of_drawing():
    """Rows a_s + columns b_n: variances add, each as of a mean of drawn values."""
    generator = np.random.default_rng(0)
    seeds, problems = generator.normal(size=(5, 1)), generator.normal(size=(1, 40))
    estimate = crossed_interval(seeds + problems, resamples=40_000, level=0.6827)
    expected = math.sqrt(seeds.var() / 5 + problems.var() / 40)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [(0.5, "shown"), (0.0, "not shown"), (-0.5, "contradicted")],
)
def test_the_interval_decides(shift, verdict):
    noise = np.tile([0.1, -0.1], (3, 8))
    claim = seeds_claim("c", "first > second", noise + shift)
    assert claim.verdict == verdict
    assert claim.difference == pytest.approx(shift)
    assert "3 seeds × 16 problems" in claim.detail


def test_few_problems_decide_nothing():
    values = np.zeros((3, 16))
    values[:, :5] = 1.0
    claim = seeds_claim("c", "first > second", values)
    assert claim.verdict == "not shown"
    assert "5 of which differ" in claim.detail


def test_problems_that_a_seed_did_not_measure_are_left_out():
    values = np.ones((2, 8))
    values[1, 0] = np.nan
    assert "2 seeds × 7 problems" in seeds_claim("c", "s", values).detail
    with pytest.raises(DataError, match="leave problems without"):
        crossed_interval(values)
    with pytest.raises(DataError, match="finite value for each seed"):
        seeds_claim("c", "s", np.full((2, 3), np.nan))


THEOREMS = tuple(f"t{number}" for number in range(40))


def arm(name, successes=0, entropy=0.5, **changed):
    values = {
        "theorems": THEOREMS,
        "samples": 8,
        "successes": (successes,) * 40,
        "missing": (0,) * 40,
        "distinct_proofs": (0,) * 40,
        "policy_entropy": tuple(np.broadcast_to(entropy, 40).tolist()),
    }
    return ArmResult(arm=name, **values | changed)


def pooled(*seeds):
    return {claim.name: claim for claim in pooled_claims(seeds, (1, 8))}


def test_seeds_that_disagree_are_not_pooled_as_more_theorems():
    """+0.3 and −0.1 everywhere: the mean of two drawn seeds is 0.3, 0.1 or −0.1.

    With the theorems of both in one row, or with their mean over seeds, the interval
    would lie above zero.
    """
    grpo = arm("grpo", entropy=0.5)
    seeds = [(grpo, arm("fd", entropy=value)) for value in (0.8, 0.4)]
    alone = [evaluate_claims(arms, (1, 8))[0].verdict for arms in seeds]
    assert alone == ["shown", "contradicted"]
    claim = pooled(*seeds)["fd_entropy"]
    assert (claim.difference, claim.low, claim.high) == pytest.approx((0.1, -0.1, 0.3))
    assert claim.verdict == "not shown"
    assert "2 seeds × 40 problems; by seed: +0.300, -0.100" in claim.detail


def test_seeds_that_agree_show_it_and_the_worst_comparison_decides():
    arms = (arm("fd", 2), arm("grpo", 4), arm("fd_then_grpo", 3))
    claims = pooled(arms, arms, arms)
    assert "fd_control_large_k" not in claims
    found = claims["fd_then_grpo_pass_at_1"]
    # Above FD by 1/8 everywhere, below GRPO by as much.
    assert (found.difference, found.verdict) == (-0.125, "contradicted")
    assert "fd_then_grpo against fd: difference +0.125" in found.detail
    better = (arm("fd", 2), arm("grpo", 1), arm("fd_then_grpo", 3))
    assert pooled(better, better)["fd_then_grpo_pass_at_1"].verdict == "shown"


def test_theorems_are_paired_by_name_and_measured_by_all_seeds():
    entropy = np.linspace(0.0, 1.0, 40)
    turned = arm("fd", entropy=entropy[::-1] + 0.2, theorems=THEOREMS[::-1])
    missing = np.where(np.arange(40) == 7, np.nan, entropy + 0.2)
    grpo = arm("grpo", entropy=entropy)
    claim = pooled((grpo, turned), (grpo, arm("fd", entropy=missing)))["fd_entropy"]
    assert (claim.low, claim.high) == pytest.approx((0.2, 0.2))
    assert "2 seeds × 39 problems" in claim.detail


def test_nothing_measured_shows_nothing():
    unknown = arm("fd", entropy=math.nan)
    claim = pooled((arm("grpo"), unknown))["fd_entropy"]
    assert claim.verdict == "not shown"
    assert math.isnan(claim.difference)
    with pytest.raises(DataError, match="at least one seed"):
        pooled_claims([], (1, 8))
    with pytest.raises(ConfigError, match="at least one k"):
        pooled_claims([(arm("fd"),)], ())
