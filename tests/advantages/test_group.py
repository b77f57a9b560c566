import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from fdjax.advantages import centred, leave_one_out, zscore
from fdjax.errors import ConfigError
from reference import advantages as reference

_JITTED = {
    centred: jax.jit(centred),
    zscore: jax.jit(zscore),
    leave_one_out: jax.jit(leave_one_out),
}
_EVERY = pytest.mark.parametrize("function", _JITTED)
_MASKS = arrays(np.bool_, (3, 4))
_REWARDS = arrays(
    np.float32,
    (3, 4),
    # Multiples of 1/8, so that rewards are equal often and never almost.
    elements=st.integers(-16, 16).map(lambda n: n / 8),
)


def _run(function, rewards, mask=None):
    rewards = np.asarray(rewards, np.float32)
    mask = np.ones(rewards.shape, bool) if mask is None else np.asarray(mask)
    return _JITTED[function](rewards, mask)


def test_hand_computed_values():
    # Rewards (1, 0, 0, 1): mean 1/2, population std 1/2.
    rewards = [[1, 0, 0, 1]]
    np.testing.assert_array_equal(_run(centred, rewards)[0], [[0.5, -0.5, -0.5, 0.5]])
    z = 0.5 / (0.5 + 1e-4)
    np.testing.assert_allclose(_run(zscore, rewards)[0], [[z, -z, -z, z]], rtol=1e-6)
    # A one against the other three, mean 1/3: 2/3. A zero against mean 2/3: -2/3.
    third = 2 / 3
    np.testing.assert_allclose(
        _run(leave_one_out, rewards)[0], [[third, -third, -third, third]], rtol=1e-6
    )


def test_missing_rewards_are_neither_zeros_nor_members():
    # Known (1, 0): mean 1/2. Counting the missing one as 0 would give a mean of 1/3.
    rewards, mask = [[1, 0, math.nan]], [[True, True, False]]
    np.testing.assert_array_equal(_run(centred, rewards, mask)[0], [[0.5, -0.5, 0]])
    z = 0.5 / (0.5 + 1e-4)
    np.testing.assert_allclose(_run(zscore, rewards, mask)[0], [[z, -z, 0]], rtol=1e-6)
    np.testing.assert_array_equal(_run(leave_one_out, rewards, mask)[0], [[1, -1, 0]])


@_EVERY
def test_equal_rewards_give_exactly_zero(function):
    # The float32 mean of eight times 0.7 is not 0.7: the difference of 6e-8 over 1e-4
    # would leave a gradient.
    for reward in (0.0, 0.1, 0.7, 0.9, 1.0, 1e6):
        advantages, metrics = _run(function, [[reward] * 8] * 2)
        assert not np.any(advantages)
        assert metrics["advantages/live_groups"] == (0, 2)


@_EVERY
def test_metrics(function):
    # Live; all equal; one known; none known, which is no group to judge.
    rewards = [[1, 0, 0], [1, 1, 5], [1, 0, 0], [1, 0, 0]]
    mask = [[True] * 3, [True, True, False], [False, True, False], [False] * 3]
    advantages, metrics = _run(function, rewards, mask)
    assert set(metrics) == {"advantages/live_groups", "advantages/known_rewards"}
    assert metrics["advantages/live_groups"] == (1, 3)
    assert metrics["advantages/known_rewards"] == (6, 12)
    assert np.any(advantages[0])
    assert not np.any(advantages[1:])


@_EVERY
@settings(deadline=None)
@given(rewards=_REWARDS, mask=_MASKS)
def test_equals_float64_reference(function, rewards, mask):
    expected = getattr(reference, function.__name__)(rewards, mask)
    got, metrics = _run(function, rewards, mask)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    live = int(np.any(expected != 0, axis=1).sum())
    judged = int(mask.any(axis=1).sum())
    assert metrics["advantages/live_groups"] == (live, judged)


@_EVERY
@settings(deadline=None)
@given(rewards=_REWARDS, mask=_MASKS, shift=st.integers(-8, 8))
def test_invariances(function, rewards, mask, shift):
    got = np.asarray(_run(function, rewards, mask)[0])
    # Nothing under the mask matters, not even NaN.
    poisoned = np.where(mask, rewards, np.float32(np.nan))
    assert np.array_equal(_run(function, poisoned, mask)[0], got)
    assert not np.any(got[~mask])
    # The advantages of a group sum to zero and do not see a constant.
    np.testing.assert_allclose(got.sum(axis=1), 0, atol=1e-5)
    shifted = _run(function, rewards + np.float32(shift), mask)[0]
    np.testing.assert_allclose(shifted, got, atol=1e-4)
    # The order of members moves with them.
    reversed_ = _run(function, rewards[:, ::-1], mask[:, ::-1])[0]
    np.testing.assert_allclose(np.asarray(reversed_)[:, ::-1], got, atol=1e-5)


@settings(deadline=None)
@given(rewards=_REWARDS)
def test_scaling(rewards):
    # z-scores forget the scale up to the 1e-4; centred rewards keep it.
    z, tenfold = _run(zscore, rewards)[0], _run(zscore, rewards * np.float32(10))[0]
    np.testing.assert_allclose(tenfold, z, rtol=2e-3, atol=1e-5)
    twice = _run(centred, rewards * np.float32(2))[0]
    np.testing.assert_array_equal(twice, 2 * np.asarray(_run(centred, rewards)[0]))


@_EVERY
def test_bfloat16_rewards_are_averaged_in_float32(function):
    # 300 ones among 600: a bfloat16 sum stops at 256, for a mean of 0.427.
    rewards = jnp.tile(jnp.array([[1, 0]], jnp.bfloat16), (1, 300))
    advantages, _ = _JITTED[function](rewards, jnp.ones((1, 600), bool))
    assert advantages.dtype == jnp.float32
    scale = {centred: 0.5, zscore: 0.5 / 0.5001, leave_one_out: 300 / 599}[function]
    np.testing.assert_allclose(advantages[0, :2], [scale, -scale], rtol=1e-5)


@_EVERY
@pytest.mark.parametrize("shape", [(2, 1), (1, 3), (2,), (3, 2)])
def test_masks_of_another_shape_raise(function, shape, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match="one boolean of the mask for each reward"):
        function(jnp.ones((2, 3)), jnp.ones(shape, bool))


@_EVERY
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_missing(function, number):
    rewards, mask = [[1, 0, number, 1]], [[True] * 4]
    got, metrics = _run(function, rewards, mask)
    without, _ = _run(function, [[1, 0, 1]])
    assert got[0, 2] == 0
    np.testing.assert_array_equal(np.delete(got, 2, axis=1), without)
    assert metrics["advantages/known_rewards"] == (3, 4)


@_EVERY
def test_groups_without_samples_are_refused(function):
    with pytest.raises(ConfigError, match="at least one sample"):
        function(jnp.zeros((2, 0)), jnp.zeros((2, 0), bool))


@_EVERY
def test_ungrouped_rewards_and_masks_of_numbers_are_refused(function, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=r"as \[problems, samples\]"):
        function(jnp.zeros(4), jnp.ones(4, bool))
    with pytest.raises(ConfigError, match="one boolean"):
        function(jnp.zeros((2, 2)), jnp.ones((2, 2)))
