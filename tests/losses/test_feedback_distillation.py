import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import loss_contract
from fdjax.errors import ConfigError
from fdjax.losses import feedback_distillation_loss
from fdjax.ops import (
    forward_kl,
    generalized_jsd,
    reverse_kl,
    token_logprobs,
    truncated_importance_weights,
)
from reference import divergence as reference

VOCABULARY = 7
DIVERGENCES = {
    "forward": (forward_kl, reference.forward_kl),
    "reverse": (reverse_kl, reference.reverse_kl),
    "jsd": (
        functools.partial(generalized_jsd, alpha=0.3),
        functools.partial(reference.generalized_jsd, alpha=0.3),
    ),
}


def _closure(divergence=forward_kl, temperature=1.0, clip=None):
    def loss(student_logits, batch, normalizer):
        return feedback_distillation_loss(
            student_logits,
            teacher_logits=batch["teacher_logits"],
            mask=batch["mask"],
            normalizer=normalizer,
            divergence=divergence,
            temperature=temperature,
            divergence_clip=clip,
            weights=batch["weights"],
        )

    return loss


@pytest.fixture
def inputs():
    rng = np.random.default_rng(3)
    mask = loss_contract.scored_mask()
    batch = {
        "teacher_logits": rng.normal(0, 2, (*mask.shape, VOCABULARY)),
        "mask": mask,
        "weights": rng.uniform(0.5, 2.0, mask.shape),
    }
    batch = {
        name: array if name == "mask" else array.astype(np.float32)
        for name, array in batch.items()
    }
    student = rng.normal(0, 2, (*mask.shape, VOCABULARY)).astype(np.float32)
    return student, batch, jnp.float32(mask.sum())


_CLOSURES = {name: _closure(ours) for name, (ours, _) in DIVERGENCES.items()}
_CLOSURES["clipped"] = _closure(clip=1.0)  # of the tokens here, some are beyond it


@pytest.fixture(params=_CLOSURES)
def closure(request):
    return _CLOSURES[request.param]


def test_hand_computed_value():
    # p = (1/2, 1/2) everywhere.
    # Row 0: q = (3/4, 1/4), KL(q‖p) = 3/4 ln(3/2) - 1/4 ln 2.
    # Row 1: q = p, KL 0. Row 2 has no feedback, though q = (0.99, 0.01) there.
    # Loss: KL / 2 scored tokens.
    kl = 0.75 * math.log(1.5) - 0.25 * math.log(2)
    loss, metrics = feedback_distillation_loss(
        jnp.zeros((3, 1, 2)),
        teacher_logits=jnp.log(
            jnp.array([[[0.75, 0.25]], [[0.5, 0.5]], [[0.99, 0.01]]])
        ),
        mask=jnp.array([[True], [True], [False]]),
        normalizer=jnp.float32(2),
    )
    np.testing.assert_allclose(loss, kl / 2, rtol=1e-6)
    assert set(metrics) == {
        "fd/divergence",
        "fd/forward_kl",
        "fd/student_entropy",
        "fd/teacher_entropy",
    }
    assert all(mean.weight == 2 for mean in metrics.values())
    # H(3/4, 1/4) = ln 4 - 3/4 ln 3; H(1/2, 1/2) = ln 2.
    teacher_entropy = (math.log(4) - 0.75 * math.log(3) + math.log(2)) / 2
    assert metrics["fd/divergence"].value() == pytest.approx(kl / 2, rel=1e-6)
    assert metrics["fd/forward_kl"].value() == pytest.approx(kl / 2, rel=1e-6)
    assert metrics["fd/student_entropy"].value() == pytest.approx(math.log(2))
    assert metrics["fd/teacher_entropy"].value() == pytest.approx(teacher_entropy)


def test_a_clip_by_hand():
    """Beyond the clip a token counts as the clip and has no gradient."""

    def loss(logits):
        return feedback_distillation_loss(
            logits,
            teacher_logits=jnp.log(jnp.array([[[0.75, 0.25]], [[0.99, 0.01]]])),
            mask=jnp.ones((2, 1), bool),
            normalizer=jnp.float32(2),
            divergence_clip=0.2,
        )

    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(
        jnp.zeros((2, 1, 2))
    )
    # KL(q‖p) = 3/4 ln(3/2) - 1/4 ln 2 = 0.1308 is kept; 0.99 ln 1.98 + 0.01 ln 0.02 =
    # 0.6371 counts as 0.2. The gradient is (p - q) / 2, and 0 where clipped.
    kept = 0.75 * math.log(1.5) - 0.25 * math.log(2)
    cut = 0.99 * math.log(1.98) + 0.01 * math.log(0.02)
    assert value == pytest.approx((kept + 0.2) / 2, rel=1e-6)
    np.testing.assert_allclose(gradient[0, 0], [-0.125, 0.125], rtol=1e-6)
    np.testing.assert_array_equal(gradient[1], 0.0)
    assert metrics["fd/clip_fraction"].value() == 0.5
    assert metrics["fd/divergence"].value() == pytest.approx((kept + cut) / 2)


def test_a_clip_of_nothing_is_refused(inputs):
    student, batch, normalizer = inputs
    arguments = {name: jnp.asarray(batch[name]) for name in ("teacher_logits", "mask")}
    with pytest.raises(ConfigError, match="expected divergence_clip to be"):
        feedback_distillation_loss(
            jnp.asarray(student),
            **arguments,
            normalizer=normalizer,
            divergence_clip=0.0,
        )


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_equals_float64_reference(inputs, name, temperature):
    student, batch, normalizer = inputs
    ours, theirs = DIVERGENCES[name]
    student64 = student.astype(np.float64) / temperature
    teacher64 = batch["teacher_logits"].astype(np.float64) / temperature
    expected = reference.feedback_distillation(
        student64,
        teacher64,
        batch["mask"],
        float(normalizer),
        theirs,
        batch["weights"],
    )
    loss, metrics = jax.jit(_closure(ours, temperature))(*inputs)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    scored = batch["mask"]
    for key, values in {
        "fd/divergence": theirs(student64, teacher64),
        "fd/forward_kl": reference.forward_kl(student64, teacher64),
        "fd/student_entropy": reference.entropy(student64),
        "fd/teacher_entropy": reference.entropy(teacher64),
    }.items():
        assert metrics[key].value() == pytest.approx(values[scored].mean(), rel=1e-5)


def test_gradient(inputs, closure):
    loss_contract.check_gradient(closure, *inputs)


def test_padding_is_inert(inputs, closure):
    loss_contract.check_inert_padding(closure, *inputs)


def test_microbatches_add_up(inputs, closure):
    loss_contract.check_microbatches(closure, *inputs)


def test_eight_devices_equal_one(inputs, closure):
    loss_contract.check_eight_devices(closure, *inputs)


def test_gradient_is_weighted_p_minus_q_over_z(inputs):
    student, batch, normalizer = inputs
    gradient = jax.jit(jax.grad(_closure(), has_aux=True))(*inputs)[0]
    expected = reference.forward_kl_gradient(student, batch["teacher_logits"])
    weights = np.where(batch["mask"], batch["weights"], 0)[..., None]
    np.testing.assert_allclose(
        gradient, expected * weights / float(normalizer), atol=1e-7
    )


def test_teacher_and_weights_get_no_gradient(inputs, closure):
    batch = inputs[1]

    def loss(teacher_logits, weights):
        student, batch, normalizer = jax.tree.map(jnp.asarray, inputs)
        changed = {**batch, "teacher_logits": teacher_logits, "weights": weights}
        return closure(student, changed, normalizer)[0]

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(
        batch["teacher_logits"], batch["weights"]
    )
    for gradient in gradients:
        assert not np.any(gradient)


def test_live_weights_as_teacher_still_learn():
    # Teacher and student are the same parameter read through different contexts. Were
    # the teacher differentiated too, the gradient would be (p - q) + dKL/dteacher.
    def loss(parameter):
        return feedback_distillation_loss(
            parameter[None, None],
            teacher_logits=(2 * parameter)[None, None],
            mask=jnp.array([[True]]),
            normalizer=jnp.float32(1),
        )[0]

    parameter = np.array([0.0, 1.0], np.float32)
    expected = reference.forward_kl_gradient(parameter, 2 * parameter)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(parameter), expected, atol=1e-7)


def test_bfloat16_logits_keep_a_small_divergence():
    # About 0.005 nats at V = 4096; sums of probabilities and of a (log a - log b) in
    # bfloat16 have a resolution of 0.4 % of the largest partial sum and lose it.
    rng = np.random.default_rng(5)
    teacher = jnp.asarray(rng.normal(0, 1, (1, 1, 4096)), jnp.bfloat16)
    noise = jnp.asarray(rng.normal(0, 0.1, (1, 1, 4096)), jnp.bfloat16)
    student = teacher + noise
    expected = reference.forward_kl(
        np.asarray(student, np.float64), np.asarray(teacher, np.float64)
    ).item()
    assert 0.003 < expected < 0.007
    loss, metrics = jax.jit(feedback_distillation_loss)(
        student,
        teacher_logits=teacher,
        mask=jnp.array([[True]]),
        normalizer=jnp.float32(1),
    )
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-3)
    assert metrics["fd/divergence"].value() == pytest.approx(expected, rel=1e-3)


def test_impossible_tokens_are_harmless(inputs):
    # Vocabularies are padded with -inf in student and teacher alike.
    student, batch, normalizer = inputs
    padding = np.full((*batch["mask"].shape, 3), -np.inf, np.float32)
    padded_batch = {
        **batch,
        "teacher_logits": np.concatenate([batch["teacher_logits"], padding], axis=-1),
    }
    padded = np.concatenate([student, padding], axis=-1)
    for divergence, _ in DIVERGENCES.values():
        run = jax.jit(jax.value_and_grad(_closure(divergence), has_aux=True))
        (expected, _), expected_gradient = run(student, batch, normalizer)
        (loss, _), gradient = run(padded, padded_batch, normalizer)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        np.testing.assert_allclose(
            gradient[..., :VOCABULARY], expected_gradient, atol=1e-7
        )
        assert not np.any(gradient[..., VOCABULARY:])


def test_importance_weights_vanish_on_policy(inputs):
    student, batch, normalizer = jax.tree.map(jnp.asarray, inputs)
    tokens = jnp.zeros(batch["mask"].shape, jnp.int32)
    old_logprobs = token_logprobs(student, tokens)

    def loss(student_logits, weighted):
        weights = truncated_importance_weights(
            token_logprobs(student_logits, tokens),
            old_logprobs=old_logprobs,
            mask=batch["mask"],
        )
        return feedback_distillation_loss(
            student_logits,
            teacher_logits=batch["teacher_logits"],
            mask=batch["mask"],
            normalizer=normalizer,
            weights=weights if weighted else None,
        )[0]

    run = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    weighted_loss, weighted_gradient = run(student, True)
    plain_loss, plain_gradient = run(student, False)
    # The weights are exactly 1 (tests/ops); two compiled programs round differently.
    np.testing.assert_allclose(weighted_loss, plain_loss, rtol=1e-6)
    np.testing.assert_allclose(weighted_gradient, plain_gradient, rtol=1e-6, atol=1e-9)


def test_temperature_must_be_positive(inputs):
    with pytest.raises(ConfigError, match=r"temperature to be .*, got 0"):
        jax.jit(_closure(temperature=0.0))(*inputs)
