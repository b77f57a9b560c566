import math

import numpy as np
import pytest

from fdjax.errors import DataError
from fdjax.eval import crossed_interval, seeds_claim


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
