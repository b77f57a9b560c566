import functools
import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import loss_contract
from fdjax.errors import ConfigError
from fdjax.losses import gspo_loss
from reference import policy


def _loss(logprobs, batch, normalizer):
    # Ranges wide enough that finite differences do not step over the kinks.
    return gspo_loss(
        logprobs, normalizer=normalizer, clip_low=0.1, clip_high=0.2, **batch
    )


@pytest.fixture
def inputs():
    logprobs, batch = loss_contract.policy_inputs(seed=735)
    del batch["weights"]
    return logprobs, batch, jnp.float32(batch["mask"].any(axis=1).sum())


def test_hand_computed_value():
    # Row 0: r = (2, 1/2, 4), so s = 4^(1/3) = 1.587, A = 1, clipped at 1.2 -> -1.2.
    # Row 1: r = 9/10 with one scored token, A = 2 -> -1.8. Row 2 has none.
    # Loss: (-1.2 - 1.8) / 2 sequences = -1.5.
    loss, metrics = gspo_loss(
        jnp.log(jnp.array([[2.0, 0.5, 4.0], [0.9, 5.0, 5.0], [3.0, 3.0, 3.0]])),
        old_logprobs=jnp.zeros((3, 3)),
        advantages=jnp.array([1.0, 2.0, 7.0]),
        mask=jnp.array([[True] * 3, [True, False, False], [False] * 3]),
        normalizer=jnp.float32(2),
        clip_low=0.2,
        clip_high=0.2,
    )
    np.testing.assert_allclose(loss, -1.5, rtol=1e-6)
    assert set(metrics) == {"gspo/clip_fraction", "gspo/log_ratio", "gspo/kl_k3"}
    assert metrics["gspo/clip_fraction"] == (1, 2)
    log_ratio = (math.log(4) / 3 + math.log(0.9)) / 2
    assert metrics["gspo/log_ratio"].value() == pytest.approx(log_ratio, rel=1e-5)
    # k3 of four tokens is r - 1 - log r.
    k3 = (1 - 0.5 + 3 - 0.1 - math.log(4 * 0.9)) / 4
    assert metrics["gspo/kl_k3"].value() == pytest.approx(k3, rel=1e-5)


def test_equals_float64_reference(inputs):
    logprobs, batch, normalizer = inputs
    expected = policy.gspo(
        logprobs,
        batch["old_logprobs"],
        batch["advantages"],
        batch["mask"],
        float(normalizer),
        0.1,
        0.2,
    )
    loss, metrics = jax.jit(_loss)(*inputs)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert (
        0 < metrics["gspo/clip_fraction"].total < metrics["gspo/clip_fraction"].weight
    )


def test_gradient(inputs):
    loss_contract.check_gradient(_loss, *inputs)


def test_padding_is_inert(inputs):
    loss_contract.check_inert_padding(_loss, *inputs)


def test_microbatches_add_up(inputs):
    loss_contract.check_microbatches(_loss, *inputs)


def test_eight_devices_equal_one(inputs):
    loss_contract.check_eight_devices(_loss, *inputs)


def test_clip_decides_for_the_whole_sequence():
    # Mean log-ratio of row 0 is 0 although its tokens moved far: nothing is clipped,
    # each token gets -s A / |y| = -1/2. Row 1 moved as a whole: no gradient at all.
    def loss(logprobs):
        return gspo_loss(
            logprobs,
            old_logprobs=jnp.zeros((2, 2)),
            advantages=jnp.ones(2),
            mask=jnp.ones((2, 2), bool),
            normalizer=jnp.float32(1),
        )[0]

    gradient = jax.grad(loss)(jnp.array([[0.7, -0.7], [0.01, 0.01]]))
    np.testing.assert_allclose(gradient, [[-0.5, -0.5], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("log_ratio", "value", "gradient"), [(math.log(0.5), 0.9, 0.0), (math.log(2), 2, 2)]
)
def test_clip_for_negative_advantages(log_ratio, value, gradient):
    loss = functools.partial(
        gspo_loss,
        old_logprobs=jnp.zeros((1, 1)),
        advantages=jnp.array([-1.0]),
        mask=jnp.ones((1, 1), bool),
        normalizer=jnp.float32(1),
        clip_low=0.1,
        clip_high=0.1,
    )
    (got, _), slope = jax.value_and_grad(loss, has_aux=True)(jnp.array([[log_ratio]]))
    assert float(got) == pytest.approx(value, rel=1e-6)
    assert slope.item() == pytest.approx(gradient, rel=1e-6)


def test_advantages_of_the_wrong_length_raise(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match="advantages of shape"):
        gspo_loss(
            jnp.zeros((3, 2)),
            old_logprobs=jnp.zeros((3, 2)),
            advantages=jnp.ones(1),
            mask=jnp.ones((3, 2), bool),
            normalizer=jnp.float32(3),
        )
