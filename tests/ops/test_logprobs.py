import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.errors import ConfigError
from fdjax.ops import (
    entropy,
    importance_ratio,
    token_logprobs,
    truncated_importance_weights,
)
from reference import divergence as reference


def test_token_logprobs_by_hand():
    # softmax(0, ln 3) = (1/4, 3/4).
    logits = jnp.log(jnp.array([[1.0, 3.0], [1.0, 3.0]]))
    got = token_logprobs(logits, jnp.array([0, 1]))
    np.testing.assert_allclose(got, [math.log(0.25), math.log(0.75)], rtol=1e-6)


def test_temperature_divides_the_logits():
    # At τ = 2, softmax(0, ln 9 / 2) = softmax(0, ln 3) = (1/4, 3/4); at 1 it is 9/10.
    logits = jnp.log(jnp.array([1.0, 9.0]))
    token = jnp.array(1)
    assert float(token_logprobs(logits, token, temperature=2.0)) == pytest.approx(
        math.log(0.75)
    )
    assert float(token_logprobs(logits, token)) == pytest.approx(math.log(0.9))
    # H(1/4, 3/4) = ln 4 - 3/4 ln 3.
    assert float(entropy(logits, temperature=2.0)) == pytest.approx(
        math.log(4) - 0.75 * math.log(3)
    )


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ConfigError, match="temperature to be a finite number above"):
        token_logprobs(jnp.zeros(2), jnp.array(0), temperature=temperature)
    with pytest.raises(ConfigError, match="temperature to be a finite number above"):
        entropy(jnp.zeros(2), temperature=temperature)


def test_a_low_temperature_magnifies_no_rounding():
    # softmax(0, 0.001 / 0.01) whatever is added to both: 512 + 2^-10 is a float32.
    logits = jnp.array([512.0, 512.0 + 2**-10])
    got = token_logprobs(logits, jnp.array(0), temperature=0.01)
    want = -math.log1p(math.exp(2**-10 / 0.01))
    assert float(got) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("scale", [0.1, 3.0, 60.0])
def test_equal_float64_reference(scale):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, scale, (3, 4, 50)).astype(np.float32)
    tokens = rng.integers(0, 50, (3, 4))
    expected = np.take_along_axis(
        reference.log_softmax(logits), tokens[..., None], axis=-1
    )[..., 0]
    got = jax.jit(token_logprobs)(logits, tokens.astype(np.int32))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        jax.jit(entropy)(logits), reference.entropy(logits), rtol=1e-5, atol=1e-5
    )


def test_entropy_of_uniform_and_of_certain():
    assert float(entropy(jnp.zeros(8))) == pytest.approx(math.log(8), rel=1e-6)
    certain = jnp.array([5.0, -jnp.inf, -jnp.inf])
    value, gradient = jax.jit(jax.value_and_grad(entropy))(certain)
    assert value == 0
    np.testing.assert_array_equal(gradient, [0, 0, 0])


def test_bfloat16_logits_are_normalised_in_float32():
    # 4096 equal logits: log p = -ln 4096. A bfloat16 sum of ones stops at 256, which
    # would give -ln 256.
    logits = jnp.zeros((4096,), jnp.bfloat16)
    got = token_logprobs(logits, jnp.array(7))
    assert got.dtype == jnp.float32
    assert float(got) == pytest.approx(-math.log(4096), rel=1e-6)
    assert float(entropy(logits)) == pytest.approx(math.log(4096), rel=1e-6)


def test_gradient_of_a_token_is_onehot_minus_softmax():
    logits = jnp.log(jnp.array([1.0, 3.0]))
    gradient = jax.grad(token_logprobs)(logits, jnp.array(0))
    np.testing.assert_allclose(gradient, [0.75, -0.75], rtol=1e-6)


def _weights(logprobs, old_logprobs, mask=None, **settings):
    logprobs = jnp.asarray(logprobs, jnp.float32)
    if mask is None:
        mask = jnp.ones(logprobs.shape, bool)
    return truncated_importance_weights(
        logprobs,
        old_logprobs=jnp.asarray(old_logprobs, jnp.float32),
        mask=mask,
        **settings,
    )


def test_importance_weights_by_hand():
    # Ratios 1.5, 8 and 1/4; 8 is cut at C = 2, small ratios are not raised.
    got = _weights(np.log([[0.3, 0.8, 0.1]]), np.log([[0.2, 0.1, 0.4]]))
    np.testing.assert_allclose(got, [[1.5, 2, 0.25]], rtol=1e-6)
    got = _weights(np.log([[0.8]]), np.log([[0.1]]), cap=10.0)
    np.testing.assert_allclose(got, [[8]], rtol=1e-6)


def test_importance_weights_are_exactly_one_on_policy():
    logprobs = -np.random.default_rng(0).gamma(2, 3, (4, 9)).astype(np.float32)
    np.testing.assert_array_equal(_weights(logprobs, logprobs), np.ones((4, 9)))


def test_importance_weights_ignore_what_is_masked():
    mask = jnp.array([[True, False]])
    got = _weights([[-1.0, jnp.nan]], [[-1.0, -jnp.inf]], mask)
    np.testing.assert_array_equal(got, [[1, 1]])


def test_importance_weights_stay_finite_and_carry_no_gradient():
    extremes = ([[0.0, -1e4]], [[-1e4, 0.0]])
    got = _weights(*extremes)
    np.testing.assert_allclose(got, [[2, math.exp(-20)]], rtol=1e-5)
    assert float(importance_ratio(jnp.float32(1e4))) == pytest.approx(
        math.exp(20), rel=1e-5
    )
    gradient = jax.grad(lambda logprobs: _weights(logprobs, [[-1.0, -1.0]]).sum())(
        jnp.array([[-1.1, -0.9]])
    )
    np.testing.assert_array_equal(gradient, [[0, 0]])


def test_importance_cap_must_be_positive():
    with pytest.raises(ConfigError, match=r"cap to be .* above 0, got 0"):
        _weights([[-1.0]], [[-1.0]], cap=0.0)
