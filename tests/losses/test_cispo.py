import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import loss_contract
from fdjax.errors import ConfigError
from fdjax.losses import cispo_loss
from reference import policy

CAP = 1.4


def _loss(logprobs, batch, normalizer):
    return cispo_loss(logprobs, normalizer=normalizer, ratio_cap=CAP, **batch)


@pytest.fixture
def inputs():
    logprobs, batch = loss_contract.policy_inputs(seed=735)
    return logprobs, batch, jnp.float32(batch["mask"].sum())


def _one_token(logprob, ratio, advantage):
    def loss(logprobs):
        return cispo_loss(
            logprobs,
            old_logprobs=jnp.array([[logprob - math.log(ratio)]]),
            advantages=jnp.array([advantage]),
            mask=jnp.array([[True]]),
            normalizer=jnp.float32(1),
            ratio_cap=5.0,
        )

    run = jax.value_and_grad(loss, has_aux=True)
    (value, metrics), gradient = run(jnp.array([[logprob]]))
    return float(value), gradient.item(), metrics


def test_hand_computed_value():
    # log p = -3, r = 2, A = 1/2: -2 * 1/2 * -3 = 3.
    value, gradient, metrics = _one_token(-3.0, 2.0, 0.5)
    assert value == pytest.approx(3, rel=1e-6)
    assert gradient == pytest.approx(-1, rel=1e-6)
    assert set(metrics) == {"cispo/clip_fraction", "cispo/log_ratio", "cispo/kl_k3"}
    assert metrics["cispo/clip_fraction"] == (0, 1)
    assert metrics["cispo/log_ratio"].value() == pytest.approx(math.log(2), rel=1e-5)
    # k3 is r - 1 - log r.
    assert metrics["cispo/kl_k3"].value() == pytest.approx(1 - math.log(2), rel=1e-5)


def test_ratio_is_capped_but_the_token_still_learns():
    # r = 8 is cut at 5: the gradient is -5 A, where the clipped surrogate has none.
    value, gradient, metrics = _one_token(-3.0, 8.0, 1.0)
    assert value == pytest.approx(15, rel=1e-6)
    assert gradient == pytest.approx(-5, rel=1e-6)
    assert metrics["cispo/clip_fraction"] == (1, 1)


@pytest.mark.parametrize("logprob", [-0.1, -1.0, -3.0, -20.0])
def test_gradient_has_the_sign_of_the_advantage(logprob):
    # Differentiating r too gives -A r (1 + log p): at log p = -3 it is +2 A r, and
    # descent would push a good token down.
    for advantage in (1.0, -1.0):
        _, gradient, _ = _one_token(logprob, 1.0, advantage)
        assert gradient == pytest.approx(-advantage, rel=1e-6)


def test_equals_float64_reference(inputs):
    logprobs, batch, normalizer = inputs
    expected, expected_gradient = policy.cispo(
        logprobs,
        batch["old_logprobs"],
        batch["advantages"],
        batch["mask"],
        float(normalizer),
        CAP,
        batch["weights"],
    )
    run = jax.jit(jax.value_and_grad(_loss, has_aux=True))
    (loss, metrics), gradient = run(*inputs)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-8)
    assert metrics["cispo/clip_fraction"].total > 0


def test_gradient(inputs):
    # The derivative is not that of the value, by design. What finite differences can
    # check is the same loss with the ratio held still: old log-probs that move along.
    logprobs, batch, normalizer = inputs
    batch = jax.tree.map(jnp.asarray, batch)
    log_ratio = logprobs - batch["old_logprobs"]

    @jax.jit
    def still(logprobs):
        moving = {**batch, "old_logprobs": logprobs - log_ratio}
        return _loss(logprobs, moving, normalizer)[0]

    check_grads(still, (logprobs,), order=1, modes=("fwd", "rev"), eps=5e-3)


def test_padding_is_inert(inputs):
    loss_contract.check_inert_padding(_loss, *inputs)


def test_microbatches_add_up(inputs):
    loss_contract.check_microbatches(_loss, *inputs)


def test_eight_devices_equal_one(inputs):
    loss_contract.check_eight_devices(_loss, *inputs)


def test_a_cap_below_one_is_refused():
    # 0.2 is an epsilon, not a cap: it would shrink every gradient fivefold.
    with pytest.raises(ConfigError, match=r"ratio_cap to be .* at least 1"):
        cispo_loss(
            jnp.zeros((1, 1)),
            old_logprobs=jnp.zeros((1, 1)),
            advantages=jnp.ones(1),
            mask=jnp.ones((1, 1), bool),
            normalizer=jnp.float32(1),
            ratio_cap=0.2,
        )
