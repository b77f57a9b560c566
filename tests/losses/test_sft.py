import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import loss_contract
from fdjax.losses import sft_loss
from reference import policy


def _loss(logprobs, batch, normalizer):
    return sft_loss(logprobs, mask=batch["mask"], normalizer=normalizer)


@pytest.fixture
def inputs():
    logprobs, batch = loss_contract.policy_inputs(seed=1)
    return logprobs, {"mask": batch["mask"]}, jnp.float32(batch["mask"].sum())


def test_hand_computed_value():
    # Two scored tokens of p = 1/2 and 1/8, the third is a prompt:
    # (ln 2 + ln 8) / 2 = 2 ln 2.
    loss, metrics = sft_loss(
        jnp.log(jnp.array([[0.5, 0.125, 0.001]])),
        mask=jnp.array([[True, True, False]]),
        normalizer=jnp.float32(2),
    )
    np.testing.assert_allclose(loss, 2 * math.log(2), rtol=1e-6)
    assert set(metrics) == {"sft/cross_entropy"}
    assert metrics["sft/cross_entropy"].weight == 2
    assert metrics["sft/cross_entropy"].value() == pytest.approx(2 * math.log(2))


def test_equals_float64_reference(inputs):
    logprobs, batch, normalizer = inputs
    expected = policy.sft(logprobs, batch["mask"], float(normalizer))
    loss, _ = jax.jit(_loss)(*inputs)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_gradient(inputs):
    loss_contract.check_gradient(_loss, *inputs)


def test_padding_is_inert(inputs):
    loss_contract.check_inert_padding(_loss, *inputs)


def test_microbatches_add_up(inputs):
    loss_contract.check_microbatches(_loss, *inputs)


def test_eight_devices_equal_one(inputs):
    loss_contract.check_eight_devices(_loss, *inputs)


def test_bfloat16_sum_does_not_stall():
    # 1000 tokens of log p = -1.0078125, exact in bfloat16. Summed in bfloat16 the total
    # stops growing at 256, where adding 1 no longer changes it.
    logprobs = jnp.full((1, 1000), -1.0078125, jnp.bfloat16)
    mask = jnp.ones((1, 1000), bool)
    loss, _ = sft_loss(logprobs, mask=mask, normalizer=jnp.float32(1000))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 1.0078125, rtol=1e-6)


def test_nothing_scored_is_no_step():
    def loss(logprobs):
        mask = jnp.zeros((1, 2), bool)
        return sft_loss(logprobs, mask=mask, normalizer=jnp.float32(0))

    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(
        jnp.ones((1, 2))
    )
    assert value == 0
    assert np.array_equal(gradient, np.zeros((1, 2)))
    assert metrics["sft/cross_entropy"] == (0, 0)
    assert math.isnan(metrics["sft/cross_entropy"].value())
