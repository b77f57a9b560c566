import itertools
import math
from fractions import Fraction

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fdjax.errors import ConfigError, DataError
from fdjax.eval import bootstrap_interval, paired_difference, pass_at_k


def one(successes, samples, k):
    return pass_at_k(np.array([successes]), np.array([samples]), k)[0]


@pytest.mark.parametrize(
    ("successes", "samples", "k", "expected"),
    [
        (1, 4, 1, 0.25),  # a quarter of the single draws
        (1, 4, 2, 0.5),  # 3 of the 6 pairs hold the proof
        (2, 5, 3, 0.9),  # 1 of the 10 triples misses both: 1 - 1/10
        (0, 7, 7, 0.0),
        (7, 7, 1, 1.0),
        (1, 64, 64, 1.0),
        (3, 5, 3, 1.0),  # two failures cannot fill three draws
    ],
)
def test_pass_at_k_hand_values(successes, samples, k, expected):
    assert one(successes, samples, k) == pytest.approx(expected, abs=1e-15)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_pass_at_k_counts_the_draws(data):
    samples = data.draw(st.integers(1, 8))
    successes = data.draw(st.integers(0, samples))
    k = data.draw(st.integers(1, samples))
    draws = list(itertools.combinations(range(samples), k))
    hits = sum(any(sample < successes for sample in draw) for draw in draws)
    assert one(successes, samples, k) == pytest.approx(hits / len(draws), abs=1e-13)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_pass_at_k_is_the_exact_ratio_of_binomials(data):
    samples = data.draw(st.integers(1, 3000))
    successes = data.draw(st.integers(0, samples))
    k = data.draw(st.integers(1, samples))
    miss = Fraction(math.comb(samples - successes, k), math.comb(samples, k))
    assert one(successes, samples, k) == pytest.approx(float(1 - miss), abs=1e-12)


def test_pass_at_k_is_nan_where_too_few_samples_were_judged():
    values = pass_at_k(np.array([1, 1]), np.array([4, 3]), 4)
    assert values[0] == 1.0
    assert np.isnan(values[1])


def test_pass_at_k_refuses_impossible_counts():
    with pytest.raises(ConfigError, match="at least 1"):
        one(1, 2, 0)
    with pytest.raises(DataError, match="successes"):
        one(3, 2, 1)
    with pytest.raises(DataError, match="successes"):
        one(-1, 2, 1)


def test_interval_covers_the_true_mean_as_often_as_it_says():
    # 95 % asked for; 400 trials have a standard error of 1.1 % around it, and the
    # percentile method is known to cover slightly less at 40 values.
    generator = np.random.default_rng(7)
    covered = 0
    for trial in range(400):
        values = generator.beta(0.5, 1.5, size=40)  # mean 0.25, skewed like pass@1
        estimate = bootstrap_interval(values, resamples=800, seed=trial)
        covered += estimate.low <= 0.25 <= estimate.high
    assert 0.91 <= covered / 400 <= 0.98


def test_interval_width_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(size=2000)
    estimate = bootstrap_interval(values)
    assert estimate.value == pytest.approx(values.mean(), abs=1e-12)
    # Both ends lie 1.96 standard errors from the mean.
    assert estimate.high - estimate.low == pytest.approx(
        2 * 1.96 * values.std() / math.sqrt(2000), rel=0.04
    )


def test_interval_of_another_statistic_and_level():
    values = np.arange(101.0)

    def median(rows):
        return np.median(rows, axis=-1)

    wide = bootstrap_interval(values, median, level=0.99)
    narrow = bootstrap_interval(values, median, level=0.5)
    assert wide.value == narrow.value == 50.0
    assert wide.low < narrow.low < 50.0 < narrow.high < wide.high


def test_interval_repeats_with_its_seed_whatever_the_chunks(monkeypatch):
    values = np.random.default_rng(3).normal(size=50)
    first = bootstrap_interval(values, resamples=999, seed=5)
    assert first == bootstrap_interval(values, resamples=999, seed=5)
    assert first != bootstrap_interval(values, resamples=999, seed=6)
    monkeypatch.setattr("fdjax.eval.passk._CHUNK_VALUES", 170)
    assert first == bootstrap_interval(values, resamples=999, seed=5)


def test_interval_refuses_what_it_cannot_measure():
    with pytest.raises(DataError, match="not finite"):
        bootstrap_interval(np.array([1.0, np.nan]))
    with pytest.raises(DataError, match=r"got shape \(0,\)"):
        bootstrap_interval(np.zeros(0))
    with pytest.raises(ConfigError, match="level"):
        bootstrap_interval(np.ones(3), level=1.0)
    with pytest.raises(ConfigError, match="resample"):
        bootstrap_interval(np.ones(3), resamples=0)


def test_other_numbers_of_theorems_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(DataError, match="as many theorems"):
        pass_at_k(np.array([1, 2]), np.array([3]), 1)
    with pytest.raises(DataError, match="the same theorems"):
        paired_difference(np.ones(2), np.ones(3))
    with pytest.raises(DataError, match="each theorem"):
        bootstrap_interval(np.ones((2, 2)))


def test_pairing_removes_the_spread_between_theorems():
    generator = np.random.default_rng(0)
    difficulty = generator.uniform(size=60)
    first = difficulty + 0.05 + generator.normal(scale=0.01, size=60)
    paired = paired_difference(first, difficulty)
    assert paired.low > 0.04
    assert paired.high < 0.06
    # Unpaired, the spread of difficulty (sd 0.29, so ±0.07) hides the difference.
    assert bootstrap_interval(first).low < difficulty.mean()


def test_pairing_leaves_out_what_one_arm_lacks():
    first = np.array([1.0, 0.5, np.nan, 0.5])
    second = np.array([0.0, np.nan, 1.0, 0.5])
    assert paired_difference(first, second).value == pytest.approx(0.5)  # (1 + 0) / 2
    with pytest.raises(DataError):
        paired_difference(first[1:3], second[1:3])
