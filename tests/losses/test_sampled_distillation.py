import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax.test_util import check_grads

import loss_contract
from fdjax.errors import ConfigError
from fdjax.losses import sampled_distillation_loss
from reference import policy


def _loss(logprobs, batch, normalizer):
    return sampled_distillation_loss(logprobs, normalizer=normalizer, **batch)


@pytest.fixture
def inputs():
    logprobs, batch = loss_contract.policy_inputs(seed=3)
    batch = {
        "teacher_logprobs": batch["old_logprobs"],
        "mask": batch["mask"],
        "weights": batch["weights"],
    }
    return logprobs, batch, jnp.float32(batch["mask"].sum())


def test_hand_computed_value():
    # p = (1/2, 1/4), q = (1/4, 1/2), the third token is a prompt; with l = ln 2
    # log p = (-l, -2 l) and log p - log q = (l, -l):
    # (l · -l + -l · -2 l) / 2 = l² / 2. Slopes (l, -l) / 2. Mean gap (l - l) / 2 = 0.
    def loss(logprobs):
        return sampled_distillation_loss(
            logprobs,
            teacher_logprobs=jnp.log(jnp.array([[0.25, 0.5, 0.001]])),
            mask=jnp.array([[True, True, False]]),
            normalizer=jnp.float32(2),
        )

    logprobs = jnp.log(jnp.array([[0.5, 0.25, 0.125]]))
    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(logprobs)
    log2 = math.log(2)
    assert value == pytest.approx(log2**2 / 2, rel=1e-6)
    np.testing.assert_allclose(gradient, [[log2 / 2, -log2 / 2, 0]], rtol=1e-6)
    assert set(metrics) == {"fd/sampled_gap"}
    assert metrics["fd/sampled_gap"].weight == 2
    assert metrics["fd/sampled_gap"].value() == pytest.approx(0, abs=1e-7)


def test_the_gap_is_the_mean_of_log_p_minus_log_q():
    # ln(1/2) - ln(1/8) = 2 ln 2, weighted or not: the metric estimates KL(p‖q).
    _, metrics = sampled_distillation_loss(
        jnp.log(jnp.array([[0.5]])),
        teacher_logprobs=jnp.log(jnp.array([[0.125]])),
        mask=jnp.array([[True]]),
        normalizer=jnp.float32(5),
        weights=jnp.array([[7.0]]),
    )
    assert metrics["fd/sampled_gap"].value() == pytest.approx(2 * math.log(2))


def test_descent_moves_towards_the_teacher():
    # q > p: the slope is negative, so that a step raises log p; q < p lowers it.
    def slope(teacher):
        return jax.grad(
            lambda logprobs: sampled_distillation_loss(
                logprobs,
                teacher_logprobs=jnp.array([[teacher]]),
                mask=jnp.array([[True]]),
                normalizer=jnp.float32(1),
            )[0]
        )(jnp.array([[-2.0]])).item()

    assert slope(-1.0) == pytest.approx(-1.0)
    assert slope(-4.0) == pytest.approx(2.0)
    assert slope(-2.0) == 0


def test_equals_float64_reference(inputs):
    logprobs, batch, normalizer = inputs
    expected, expected_gradient = policy.sampled_distillation(
        logprobs,
        batch["teacher_logprobs"],
        batch["mask"],
        float(normalizer),
        batch["weights"],
    )
    run = jax.jit(jax.value_and_grad(_loss, has_aux=True))
    (loss, _), gradient = run(*inputs)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-8)


def test_gradient(inputs):
    # The derivative is not that of the value, by design. What finite differences can
    # check is the same loss with the gap held still: a teacher that moves along.
    logprobs, batch, normalizer = inputs
    batch = jax.tree.map(jnp.asarray, batch)
    gap = logprobs - batch["teacher_logprobs"]

    @jax.jit
    def still(logprobs):
        moving = {**batch, "teacher_logprobs": logprobs - gap}
        return _loss(logprobs, moving, normalizer)[0]

    check_grads(still, (logprobs,), order=1, modes=("fwd", "rev"), eps=5e-3)


def test_padding_is_inert(inputs):
    loss_contract.check_inert_padding(_loss, *inputs)


def test_microbatches_add_up(inputs):
    loss_contract.check_microbatches(_loss, *inputs)


def test_eight_devices_equal_one(inputs):
    loss_contract.check_eight_devices(_loss, *inputs)


def test_gradient_reaches_logprobs_alone(inputs):
    logprobs, batch, normalizer = jax.tree.map(jnp.asarray, inputs)
    names = ("teacher_logprobs", "weights")

    def loss(arrays):
        changed = {**batch, **dict(zip(names, arrays, strict=True))}
        return _loss(logprobs, changed, normalizer)[0]

    for gradient in jax.jit(jax.grad(loss))(tuple(batch[name] for name in names)):
        assert not np.any(gradient)


def test_bfloat16_gaps_are_formed_in_float32():
    # log p - log q = -1.0078125 + 2.015625 = 1.0078125, exact in bfloat16, but the
    # product with log p, -1.01568603515625, needs more than its 8 bits.
    loss, _ = sampled_distillation_loss(
        jnp.full((1, 1), -1.0078125, jnp.bfloat16),
        teacher_logprobs=jnp.full((1, 1), -2.015625, jnp.bfloat16),
        mask=jnp.ones((1, 1), bool),
        normalizer=jnp.float32(1),
    )
    assert loss.dtype == jnp.float32
    assert float(loss) == pytest.approx(-1.01568603515625, rel=1e-7)


def test_nothing_scored_is_no_step():
    def loss(logprobs):
        return sampled_distillation_loss(
            logprobs,
            teacher_logprobs=jnp.full((1, 2), jnp.nan),
            mask=jnp.zeros((1, 2), bool),
            normalizer=jnp.float32(0),
        )

    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(
        jnp.ones((1, 2))
    )
    assert value == 0
    assert np.array_equal(gradient, np.zeros((1, 2)))
    assert metrics["fd/sampled_gap"] == (0, 0)


@pytest.mark.parametrize("name", ["teacher_logprobs", "weights"])
def test_arrays_of_another_shape_raise(name, monkeypatch):
    # [1, T] would broadcast into a wrong sum. The library's own check is under test,
    # so the shape checker of the tests is off.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    arrays = {"teacher_logprobs": jnp.zeros((3, 2)), "weights": jnp.ones((3, 2))}
    with pytest.raises(ConfigError, match=r"for values of shape \(1, 2\)"):
        sampled_distillation_loss(
            jnp.zeros((3, 2)),
            mask=jnp.ones((3, 2), bool),
            normalizer=jnp.float32(6),
            **{**arrays, name: jnp.ones((1, 2))},
        )
