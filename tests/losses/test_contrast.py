import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.errors import ConfigError
from fdjax.losses import contrast_logits
from fdjax.ops import forward_kl


def logits(*probabilities):
    return jnp.log(jnp.array(probabilities))


def test_by_hand():
    # q = (1/2, 1/4, 1/4), q' = (1/4, 1/2, 1/4), p = (1/3, 1/3, 1/3):
    # p q / q' is proportional to (2, 1/2, 1), which sums to 7/2.
    target = contrast_logits(
        logits(0.5, 0.25, 0.25),
        wrong_logits=logits(0.25, 0.5, 0.25),
        student_logits=logits(1 / 3, 1 / 3, 1 / 3),
    )
    np.testing.assert_allclose(jax.nn.softmax(target), [4 / 7, 1 / 7, 2 / 7], rtol=1e-6)
    # With c = 1/2: q √(p / q'), proportional to 1/2 √(4/3), 1/4 √(2/3), 1/4 √(4/3).
    half = contrast_logits(
        logits(0.5, 0.25, 0.25),
        wrong_logits=logits(0.25, 0.5, 0.25),
        student_logits=logits(1 / 3, 1 / 3, 1 / 3),
        strength=0.5,
    )
    expected = np.array([0.5 * math.sqrt(2), 0.25, 0.25 * math.sqrt(2)])
    np.testing.assert_allclose(
        jax.nn.softmax(half), expected / expected.sum(), rtol=1e-6
    )


def test_a_hint_that_does_what_a_wrong_one_does_teaches_nothing():
    rng = np.random.default_rng(0)
    student, hinted = jnp.asarray(rng.normal(0, 2, (2, 5, 7)).astype(np.float32))

    def loss(student):
        target = contrast_logits(hinted, wrong_logits=hinted, student_logits=student)
        return forward_kl(student, jax.lax.stop_gradient(target)).sum()

    value, gradient = jax.value_and_grad(loss)(student)
    assert value == pytest.approx(0.0, abs=1e-5)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_the_target_has_no_gradient():
    inputs = [jnp.ones((2, 3)) * scale for scale in (1.0, 2.0, 3.0)]
    gradients = jax.grad(
        lambda each: contrast_logits(
            each[0], wrong_logits=each[1], student_logits=each[2]
        ).sum()
    )(inputs)
    assert all((np.asarray(gradient) == 0).all() for gradient in gradients)


def test_tokens_that_no_model_has_stay_impossible():
    padded = jnp.array([0.0, 1.0, -jnp.inf])
    target = contrast_logits(padded, wrong_logits=padded, student_logits=padded)
    np.testing.assert_array_equal(target, padded)


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.5, math.nan])
def test_a_strength_outside_its_range_is_refused(strength):
    ones = jnp.ones((1, 2))
    with pytest.raises(ConfigError, match="expected strength to be"):
        contrast_logits(ones, wrong_logits=ones, student_logits=ones, strength=strength)
