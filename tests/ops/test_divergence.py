import functools
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from jax.test_util import check_grads

from fdjax.errors import ConfigError
from fdjax.ops import (
    forward_kl,
    generalized_jsd,
    kl_k1,
    kl_k2,
    kl_k3,
    reverse_kl,
    token_logprobs,
    top_k_divergence,
)
from reference import divergence as reference

# p = (1/2, 1/2) is the student, q = (3/4, 1/4) the teacher in the hand computations.
STUDENT = jnp.zeros(2)
TEACHER = jnp.log(jnp.array([0.75, 0.25]))

_LOGITS = arrays(
    np.float32, (3, 5), elements=st.floats(-12, 12, width=32, allow_subnormal=False)
)
_ALPHAS = (0.2, 0.5, 0.8)
# Jitted once here: hypothesis calls them many times.
_FORWARD = jax.jit(forward_kl)
_REVERSE = jax.jit(reverse_kl)
_JSD = {
    alpha: jax.jit(functools.partial(generalized_jsd, alpha=alpha))
    for alpha in (*_ALPHAS, 0.01, 0.99)
}
_ROUNDING = 2e-6  # Of a sum of five terms up to 24 nats, in float32.


def test_forward_kl_by_hand():
    # KL(q‖p) = 3/4 ln(3/4 : 1/2) + 1/4 ln(1/4 : 1/2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(forward_kl(STUDENT, TEACHER)) == pytest.approx(expected, rel=1e-6)


def test_reverse_kl_by_hand():
    # KL(p‖q) = 1/2 ln(1/2 : 3/4) + 1/2 ln(1/2 : 1/4) = 1/2 ln(4/3)
    expected = 0.5 * math.log(4 / 3)
    assert float(reverse_kl(STUDENT, TEACHER)) == pytest.approx(expected, rel=1e-6)


def test_jsd_weights_agree_with_its_mixture():
    # α = 1/4 on the teacher: M = 3/4 p + 1/4 q = (9/16, 7/16).
    # D = 1/4 KL(q‖M) + 3/4 KL(p‖M)
    #   = 1/4 [3/4 ln(12/9) + 1/4 ln(4/7)] + 3/4 [1/2 ln(8/9) + 1/2 ln(8/7)]
    from_teacher = 0.75 * math.log(12 / 9) + 0.25 * math.log(4 / 7)
    from_student = 0.5 * math.log(8 / 9) + 0.5 * math.log(8 / 7)
    expected = 0.25 * from_teacher + 0.75 * from_student
    got = float(generalized_jsd(STUDENT, TEACHER, alpha=0.25))
    assert got == pytest.approx(expected, rel=1e-5)
    # The other convention, weights swapped against the mixture, is far away.
    assert abs(0.75 * from_teacher + 0.25 * from_student - expected) > 0.1 * expected


@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
def test_values_and_gradients_equal_float64_reference(scale):
    rng = np.random.default_rng(1)
    student = rng.normal(0, scale, (4, 6, 33)).astype(np.float32)
    teacher = rng.normal(0, scale, (4, 6, 33)).astype(np.float32)
    for ours, value, slope in (
        (forward_kl, reference.forward_kl, reference.forward_kl_gradient),
        (reverse_kl, reference.reverse_kl, reference.reverse_kl_gradient),
        (
            functools.partial(generalized_jsd, alpha=0.3),
            functools.partial(reference.generalized_jsd, alpha=0.3),
            functools.partial(reference.generalized_jsd_gradient, alpha=0.3),
        ),
    ):

        def total(logits, ours=ours):
            per_token = ours(logits, jnp.asarray(teacher))
            return per_token.sum(), per_token

        run = jax.jit(jax.grad(total, has_aux=True))
        gradient, per_token = run(student)
        np.testing.assert_allclose(
            per_token, value(student, teacher), rtol=2e-5, atol=1e-6
        )
        np.testing.assert_allclose(
            gradient, slope(student, teacher), rtol=2e-4, atol=2e-6 * scale
        )


def test_small_divergence_of_bfloat16_logits():
    # Logits that differ by single bfloat16 steps, at a true divergence near 0.005.
    rng = np.random.default_rng(2)
    teacher = jnp.asarray(rng.normal(0, 1, 4096), jnp.bfloat16)
    student = teacher + jnp.asarray(rng.normal(0, 0.1, 4096), jnp.bfloat16)
    exact = [np.asarray(logits, np.float64) for logits in (student, teacher)]
    for ours, value in (
        (forward_kl, reference.forward_kl),
        (reverse_kl, reference.reverse_kl),
        (generalized_jsd, functools.partial(reference.generalized_jsd, alpha=0.5)),
    ):
        got = jax.jit(ours)(student, teacher)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, value(*exact), rtol=1e-3)
    assert 0.003 < float(_FORWARD(student, teacher)) < 0.007


@settings(deadline=None)
@given(_LOGITS, _LOGITS)
def test_divergences_are_not_negative_and_bounded(student, teacher):
    assert np.all(np.asarray(_FORWARD(student, teacher)) >= -_ROUNDING)
    assert np.all(np.asarray(_REVERSE(student, teacher)) >= -_ROUNDING)
    for alpha in _ALPHAS:
        # At most the entropy of (α, 1-α), reached by disjoint distributions.
        bound = -alpha * math.log(alpha) - (1 - alpha) * math.log(1 - alpha)
        value = np.asarray(_JSD[alpha](student, teacher))
        assert np.all(value >= -_ROUNDING)
        assert np.all(value <= bound + _ROUNDING)


@settings(deadline=None)
@given(_LOGITS, st.integers(-8, 8))
def test_zero_when_the_distributions_are_equal(logits, shift):
    # Equal logits give exactly 0; a shift is the same distribution.
    for divergence in (_FORWARD, _REVERSE):
        assert not np.any(divergence(logits, logits))
        moved = divergence(logits + np.float32(shift), logits)
        np.testing.assert_allclose(moved, 0, atol=_ROUNDING)
    for alpha in _ALPHAS:
        np.testing.assert_allclose(_JSD[alpha](logits, logits), 0, atol=_ROUNDING)


@settings(deadline=None)
@given(_LOGITS, st.integers(0, 4), st.floats(0.5, 5, width=32))
def test_positive_when_the_distributions_differ(logits, token, step):
    moved = logits.copy()
    moved[:, token] += step
    # Pinsker: KL >= 2 TV², in nats, with TV the total variation distance.
    p, q = (np.exp(reference.log_softmax(x)) for x in (moved, logits))
    least = 2 * (0.5 * np.abs(p - q).sum(axis=-1)) ** 2
    assert np.all(np.asarray(_FORWARD(moved, logits)) >= least - _ROUNDING)
    assert np.all(np.asarray(_REVERSE(moved, logits)) >= least - _ROUNDING)


@settings(deadline=None)
@given(_LOGITS, _LOGITS)
def test_swapping_the_distributions(student, teacher):
    np.testing.assert_array_equal(
        _FORWARD(student, teacher), _REVERSE(teacher, student)
    )
    np.testing.assert_allclose(
        _JSD[0.2](student, teacher), _JSD[0.8](teacher, student), atol=_ROUNDING
    )


def test_jsd_limits_are_forward_and_reverse_kl():
    # The hand values above: KL(q‖p) = 0.1308, KL(p‖q) = 0.1438, 10 % apart. At α = 0.01
    # the next term of the expansion is of relative size α.
    forward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    reverse = 0.5 * math.log(4 / 3)
    assert float(_JSD[0.01](STUDENT, TEACHER)) / 0.01 == pytest.approx(
        forward, rel=0.03
    )
    assert float(_JSD[0.99](STUDENT, TEACHER)) / 0.01 == pytest.approx(
        reverse, rel=0.03
    )


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5])
def test_jsd_refuses_its_ends(alpha):
    with pytest.raises(ConfigError, match=r"alpha to be .* above 0 and below 1"):
        generalized_jsd(STUDENT, TEACHER, alpha=alpha)


def test_impossible_tokens():
    nowhere = -jnp.inf
    # Impossible for both: as if it were not there, gradient included.
    for divergence in (forward_kl, reverse_kl, generalized_jsd):
        run = jax.jit(jax.value_and_grad(divergence))
        value, gradient = run(STUDENT, TEACHER)
        padded_value, padded_gradient = run(
            jnp.append(STUDENT, nowhere), jnp.append(TEACHER, nowhere)
        )
        np.testing.assert_allclose(padded_value, value, rtol=1e-6)
        np.testing.assert_allclose(padded_gradient[:2], gradient, rtol=1e-5)
        assert padded_gradient[2] == 0
    # Impossible for the student alone.
    certain = jnp.array([0.0, nowhere])
    assert _FORWARD(certain, STUDENT) == jnp.inf
    # KL(p‖q) with p = (1, 0), q = (1/2, 1/2) is ln 2.
    assert float(_REVERSE(certain, STUDENT)) == pytest.approx(math.log(2))
    # Disjoint distributions reach the bound of the JSD, ln 2.
    opposite = jnp.array([nowhere, 0.0])
    value, gradient = run(certain, opposite)
    assert float(value) == pytest.approx(math.log(2))
    np.testing.assert_array_equal(gradient, [0, 0])


def _estimate(estimator, logprobs, reference_logprobs, mask=None):
    if mask is None:
        mask = jnp.ones(logprobs.shape, bool)
    return estimator(logprobs, reference_logprobs=reference_logprobs, mask=mask)


def test_estimators_by_hand():
    # One token with p = 1/2 and ref = 1/4: log p/ref = ln 2, ref/p = 1/2.
    p, ref = jnp.log(jnp.array([[0.5]])), jnp.log(jnp.array([[0.25]]))
    assert _estimate(kl_k1, p, ref).item() == pytest.approx(math.log(2))
    assert _estimate(kl_k2, p, ref).item() == pytest.approx(math.log(2) ** 2 / 2)
    k3 = 0.5 - 1 + math.log(2)
    assert _estimate(kl_k3, p, ref).item() == pytest.approx(k3, rel=1e-6)


def test_estimators_ignore_what_is_masked():
    logprobs = jnp.array([[-1.0, jnp.nan, jnp.nan]])
    ref = jnp.array([[-2.0, -1.0, jnp.nan]])
    mask = jnp.array([[True, False, False]])
    for estimator in (kl_k1, kl_k2, kl_k3):
        values, pullback = jax.vjp(
            lambda x, estimator=estimator: _estimate(estimator, x, ref, mask), logprobs
        )
        np.testing.assert_array_equal(values[:, 1:], [[0, 0]])
        (gradient,) = pullback(jnp.ones((1, 3)))
        np.testing.assert_array_equal(gradient[:, 1:], [[0, 0]])
        assert gradient[0, 0] != 0


def _expectation(estimator, student, ref):
    """Mean of the estimate and of its gradient over tokens drawn from the student.

    Every token of the vocabulary is visited with its probability, so this is exact.
    """
    tokens = jnp.arange(student.shape[-1])[None]
    probabilities = np.exp(reference.log_softmax(student))[None]

    def mean(logits):
        repeated = jnp.broadcast_to(logits, (1, *logits.shape * 2))
        logprobs = token_logprobs(repeated, tokens)
        ref_logprobs = jnp.asarray(reference.log_softmax(ref), jnp.float32)[None]
        estimates = _estimate(estimator, logprobs, ref_logprobs)
        return jnp.sum(jnp.asarray(probabilities, jnp.float32) * estimates)

    return jax.jit(jax.value_and_grad(mean))(jnp.asarray(student))


def test_expected_value_and_gradient_of_the_estimators():
    rng = np.random.default_rng(4)
    student = rng.normal(0, 1, 6).astype(np.float32)
    ref = rng.normal(0, 1, 6).astype(np.float32)
    kl = reference.reverse_kl(student, ref)  # KL(p‖ref)

    value, gradient = _expectation(kl_k1, student, ref)
    np.testing.assert_allclose(value, kl, rtol=1e-5)
    np.testing.assert_allclose(gradient, np.zeros(6), atol=1e-6)

    _, gradient = _expectation(kl_k2, student, ref)
    expected = reference.reverse_kl_gradient(student, ref)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)

    value, gradient = _expectation(kl_k3, student, ref)
    np.testing.assert_allclose(value, kl, rtol=1e-5)
    expected = reference.forward_kl_gradient(student, ref)  # Of KL(ref‖p).
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("of", ["teacher", "student"])
@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, generalized_jsd])
def test_top_k_and_a_tail_lie_between_nothing_and_all(of, divergence):
    rng = np.random.default_rng(4)
    student, teacher = jnp.asarray(rng.normal(0, 2, (2, 20, 9)), jnp.float32)
    whole = divergence(student, teacher)
    before = jnp.zeros_like(whole)
    for k in range(1, 9):
        seen = top_k_divergence(student, teacher, k=k, of=of, divergence=divergence)
        # Lumping less together never lowers it.
        assert (seen >= before - _ROUNDING).all()
        before = seen
    # All but one apart, and one as the others: nothing is lumped.
    np.testing.assert_allclose(before, whole, rtol=1e-5, atol=1e-6)


def test_top_k_by_hand():
    # p = (1/2, 1/4, 1/8, 1/8), q = (1/8, 1/2, 1/4, 1/8); the teacher's two: 1 and 2.
    student = jnp.log(jnp.array([1 / 2, 1 / 4, 1 / 8, 1 / 8]))
    teacher = jnp.log(jnp.array([1 / 8, 1 / 2, 1 / 4, 1 / 8]))
    expected = (
        1 / 2 * math.log((1 / 2) / (1 / 4))
        + 1 / 4 * math.log((1 / 4) / (1 / 8))
        + 1 / 4 * math.log((1 / 4) / (5 / 8))
    )
    got = top_k_divergence(student, teacher, k=2)
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_top_k_gradient_is_that_of_its_distributions():
    """∂D/∂s = p − q of its bucket, shared in the tail as the student shares it."""
    rng = np.random.default_rng(5)
    student, teacher = jnp.asarray(rng.normal(0, 2, (2, 9)), jnp.float32)
    slope = jax.grad(lambda s: top_k_divergence(s, teacher, k=3))(student)
    p, q = jax.nn.softmax(student), jax.nn.softmax(teacher)
    kept = np.asarray(jnp.argsort(-teacher)[:3])
    tail = np.setdiff1d(np.arange(9), kept)
    want = np.array(p - q)
    want[tail] = p[tail] / p[tail].sum() * (p[tail].sum() - q[tail].sum())
    np.testing.assert_allclose(slope, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [0, 2, 5])
def test_top_k_of_all_tokens_is_refused(k):
    with pytest.raises(ConfigError, match="integer from 1 to 1, got"):
        top_k_divergence(STUDENT, TEACHER, k=k)


def test_derivatives_of_both_arguments_agree_with_differences():
    rng = np.random.default_rng(6)
    logits = jnp.asarray(rng.normal(0, 1, (2, 3, 5)), jnp.float32)
    for divergence in (forward_kl, reverse_kl, _JSD[0.2]):
        check_grads(
            lambda s, t, d=divergence: d(jnp.asarray(s), jnp.asarray(t)),
            tuple(logits),
            order=1,
            modes=("fwd", "rev"),
            eps=5e-3,
        )
