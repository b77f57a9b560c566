"""Each term by values computed by hand, on the tokens of a chunk."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.errors import ConfigError
from fdjax.ops import generalized_jsd, reverse_kl
from fdjax.rollout import Batch, TeacherPrompts
from fdjax.train import (
    CISPO,
    FD,
    GRPO,
    GSPO,
    SFT,
    Clipped,
    DualClip,
    Needs,
    ReferenceKL,
    Tokens,
    mixture,
    needs_of,
)

ROWS, LENGTH = 4, 3
WRITTEN = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0]], bool)
KNOWN = np.array([True, True, True, False])
PASSED = np.array([True, False, False, False])


def batch(**changes):
    """Four attempts of two problems; the first passed, nothing is known of the last."""
    ids = np.zeros((ROWS, LENGTH), np.int32)
    prompts = TeacherPrompts(ids, ids == 0, WRITTEN & [[True], [True], [False], [True]])
    whole = Batch(
        prompts=ids,
        prompt_valid=ids == 0,
        responses=ids,
        response_valid=WRITTEN,
        written=WRITTEN,
        known=KNOWN,
        passed=PASSED,
        pass_rate=np.array([0.5, 0.5, 0.0, 0.0], np.float32),
        advantages=np.array([1.0, -1.0, 0.5, 0.0], np.float32),
        old_logprobs=np.full((ROWS, LENGTH), -1.0, np.float32),
        version=np.array([7, 6, 7, 5], np.int32),
        feedback=prompts,
        wrong_feedback=prompts._replace(
            mask=WRITTEN & [[True], [False], [True], [True]]
        ),
    )
    return whole._replace(**changes)


def tokens(student, teachers=None, *, rows=None, chosen=0, normalizer=1.0):
    """Tokens of given probabilities; the chosen id is the same for all."""
    student = jnp.log(jnp.array(student, jnp.float32))[:, None]
    mask = jnp.ones(student.shape[:2], bool)
    return Tokens(
        logits=student,
        tokens=jnp.full(mask.shape, chosen, jnp.int32),
        mask=mask,
        rows={name: jnp.array(row)[:, None] for name, row in (rows or {}).items()},
        normalizer=jnp.float32(normalizer),
        temperature=1.0,
        teacher_logits=lambda reading: jnp.log(
            jnp.array((teachers or {})[reading], jnp.float32)
        )[:, None],
    )


def scored(term, **changes):
    """How many tokens of each row the term scores."""
    return np.asarray(term.mask(batch(**changes))).sum(axis=1).tolist()


@pytest.mark.parametrize(
    ("term", "counts"),
    [
        # Rows have 3, 2, 1 and 2 tokens; the third has no feedback, and nothing is
        # known of the fourth.
        (SFT(), [3, 0, 0, 0]),
        (GRPO(), [3, 2, 1, 0]),
        (GSPO(), [3, 2, 1, 0]),
        (FD(), [3, 2, 0, 0]),
        (FD(reads="nothing"), [3, 2, 1, 0]),
        # The second has no wrong hint.
        (FD(contrast=1.0), [3, 0, 0, 0]),
    ],
)
def test_what_is_scored(term, counts):
    assert scored(term) == counts


def test_verified_attempts_go_to_grpo_and_failed_ones_to_fd():
    grpo, fd = GRPO(route="passed"), FD(route="failed")
    assert scored(grpo) == [3, 0, 0, 0]
    assert scored(fd) == [0, 2, 0, 0]
    assert scored(GSPO(route="failed")) == [0, 2, 1, 0]
    # Each is a mean over its own tokens.
    assert float(grpo.normalizer(grpo.mask(batch()))) == 3.0
    assert float(fd.normalizer(fd.mask(batch()))) == 2.0


@pytest.mark.parametrize(
    ("aggregation", "normalizer", "weights"),
    [
        ("token", 6.0, None),
        # Three of four sequences are scored, with 3, 2 and 1 tokens.
        ("sequence", 3.0, [1 / 3, 1 / 2, 1, 0]),
        ("constant", 9.0, None),
    ],
)
def test_aggregations(aggregation, normalizer, weights):
    term = GRPO(aggregation=aggregation)
    mask = term.mask(batch())
    assert float(term.normalizer(mask)) == normalizer
    rows = term.rows(batch(), mask, jnp.int32(7))
    assert ("weights" in rows) == (weights is not None)
    if weights is not None:
        np.testing.assert_allclose(
            np.asarray(rows["weights"])[:, 0], weights, rtol=1e-6
        )


Q, P = (0.75, 0.25), (0.5, 0.5)
KL = 0.75 * math.log(1.5) - 0.25 * math.log(2)  # KL(q‖p)


@pytest.mark.parametrize(
    ("weights", "factor"), [("equal", 1.0), ("deviation", 0.4), ("variance", 0.16)]
)
def test_question_weights(weights, factor):
    """Of a pass rate of 1/5: √(1/5 · 4/5) = 2/5, and its square."""
    term = FD(question_weights=weights, importance_cap=None)
    rate = np.full(ROWS, 0.2, np.float32)
    rows = term.rows(batch(pass_rate=rate), jnp.asarray(WRITTEN), jnp.int32(0))
    rows = {name: row[0, :1] for name, row in rows.items()}
    loss, metrics = term.of_tokens(tokens([P], {"feedback": [Q]}, rows=rows))
    assert loss == pytest.approx(factor * KL, rel=1e-5)
    # What is reported is the divergence itself.
    assert metrics["fd/divergence"].value() == pytest.approx(KL, rel=1e-5)


def test_kl_clip():
    term = FD(kl_clip=0.1, importance_cap=None)
    loss, metrics = term.of_tokens(tokens([P, P], {"feedback": [Q, P]}, normalizer=2))
    # KL = 0.13 counts as 0.1; the other is 0.
    assert loss == pytest.approx(0.1 / 2, rel=1e-6)
    assert metrics["fd/clip_fraction"].value() == 0.5


def test_stale_attempts_are_weighed_and_fresh_ones_are_not():
    term = FD(importance_cap=1.5)
    rows = term.rows(batch(), jnp.asarray(WRITTEN), jnp.int32(7))
    assert np.asarray(rows["stale"])[:, 0].tolist() == [False, True, False, True]
    # The sampler gave the token 1/5, 2/5 and 1/2; it is 1/2 now: ratios 5/2, cut to
    # 3/2, and 5/4. Of the last it is fresh, whatever the ratio.
    rows = {
        "old_logprobs": np.log(np.float32([0.2, 0.4, 0.1])),
        "stale": np.array([True, True, False]),
    }
    inputs = tokens([P] * 3, {"feedback": [Q] * 3}, rows=rows, normalizer=3)
    loss, _ = term.of_tokens(inputs)
    assert loss == pytest.approx((1.5 + 1.25 + 1.0) * KL / 3, rel=1e-5)
    fresh = inputs._replace(rows=inputs.rows | {"stale": jnp.zeros((3, 1), bool)})
    plain, _ = FD(importance_cap=None).of_tokens(inputs)
    assert float(term.of_tokens(fresh)[0]) == float(plain)


def test_contrast_with_a_wrong_hint():
    teachers = {"feedback": [Q], "wrong_feedback": [Q]}
    term = FD(contrast=1.0, importance_cap=None)
    # A wrong hint that does the same leaves the student as the target.
    loss, metrics = term.of_tokens(tokens([P], teachers))
    assert loss == pytest.approx(0.0, abs=1e-6)
    assert metrics["fd/wrong_hint_kl"].value() == pytest.approx(KL, rel=1e-5)
    # One that does nothing (q' = p) leaves the teacher.
    loss, _ = term.of_tokens(tokens([P], teachers | {"wrong_feedback": [P]}))
    assert loss == pytest.approx(KL, rel=1e-5)
    # q p / q' = (3/4, 1/4) · (1/2, 1/2) / (1/4, 3/4), proportional to (9, 1).
    loss, _ = term.of_tokens(tokens([P], teachers | {"wrong_feedback": [(0.25, 0.75)]}))
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_control_reads_nothing():
    term = FD(reads="nothing", importance_cap=None)
    assert term.needs == Needs(teacher=frozenset({"nothing"}))
    assert not term.needs.feedback
    loss, _ = term.of_tokens(tokens([P], {"nothing": [Q]}))
    assert loss == pytest.approx(KL, rel=1e-5)


@pytest.mark.parametrize(
    ("divergence", "value"),
    [
        # KL(p‖q) = 1/2 ln(2/3) + 1/2 ln 2.
        (reverse_kl, 0.5 * math.log(2 / 3) + 0.5 * math.log(2)),
        # sg(log p - log q) log p of the first token: ln(2/3) ln(1/2).
        ("sampled_token", math.log(2 / 3) * math.log(0.5)),
        # M = (5/8, 3/8).
        (
            functools.partial(generalized_jsd, alpha=0.5),
            0.5 * (0.75 * math.log(1.2) + 0.25 * math.log(2 / 3))
            + 0.5 * (0.5 * math.log(0.8) + 0.5 * math.log(4 / 3)),
        ),
    ],
)
def test_divergences(divergence, value):
    term = FD(divergence=divergence, importance_cap=None)
    loss, _ = term.of_tokens(tokens([P], {"feedback": [Q]}))
    assert loss == pytest.approx(value, rel=1e-5)


def policy_tokens(advantage, ratio=1.0, teachers=None, **rows):
    """One token of probability 1/2, once drawn with 1/2 divided by the ratio."""
    rows = {
        "advantages": [advantage],
        "old_logprobs": [math.log(0.5 / ratio)],
    } | rows
    rows = {name: np.float32(row) for name, row in rows.items()}
    return tokens([P], teachers, rows=rows)


@pytest.mark.parametrize(
    ("surrogate", "advantage", "ratio", "value"),
    [
        # -min(r A, clip(r, 0.8, 1.28) A)
        (Clipped(), 1.0, 2.0, -1.28),
        (Clipped(low=0.1), -1.0, 0.5, 0.9),
        (Clipped(), -1.0, 4.0, 4.0),
        (DualClip(), -1.0, 4.0, 3.0),
        # -min(r, c) A log p
        (CISPO(cap=1.5), 1.0, 2.0, 1.5 * math.log(2)),
    ],
)
def test_surrogates(surrogate, advantage, ratio, value):
    term = GRPO(surrogate=surrogate)
    loss, _ = term.of_tokens(policy_tokens(advantage, ratio))
    assert loss == pytest.approx(value, rel=1e-5)


def test_a_reference_is_kept_near():
    """p = 1/2 and ref = 1/4 at the token: log p - log ref = ln 2."""
    teachers = {"nothing": [(0.25, 0.75)]}

    def loss(estimator, weights=None):
        term = GRPO(reference=ReferenceKL(beta=0.1, estimator=estimator))
        rows = {} if weights is None else {"weights": [weights]}
        return term.of_tokens(policy_tokens(1.0, teachers=teachers, **rows))

    assert loss("k1")[0] == pytest.approx(-(1 - 0.1 * math.log(2)), rel=1e-5)
    assert loss("k2")[0] == pytest.approx(-1 + 0.1 * math.log(2) ** 2 / 2, rel=1e-5)
    k3 = 0.5 - 1 + math.log(2)
    value, metrics = loss("k3")
    assert value == pytest.approx(-1 + 0.1 * k3, rel=1e-5)
    assert metrics["grpo/reference_kl"].value() == pytest.approx(k3, rel=1e-5)
    # Where tokens are weighed, the penalty is as well.
    assert loss("k3", 0.5)[0] == pytest.approx(0.5 * (-1 + 0.1 * k3), rel=1e-5)


def test_gradients_of_a_reference_kl():
    """At A = 0: log(p/ref) ∇log p for k1 and k2, (1 - ref/p) ∇log p for k3."""
    teachers = {"nothing": [(0.25, 0.75)]}

    def gradient(estimator):
        term = GRPO(reference=ReferenceKL(beta=1.0, estimator=estimator))
        inputs = policy_tokens(0.0, teachers=teachers)
        return jax.grad(
            lambda logits: term.of_tokens(inputs._replace(logits=logits))[0]
        )(inputs.logits)[0, 0]

    # d log p(token) / d logits = (1/2, -1/2).
    of_logprob = np.array([0.5, -0.5])
    np.testing.assert_allclose(gradient("k1"), math.log(2) * of_logprob, rtol=1e-5)
    np.testing.assert_allclose(gradient("k2"), math.log(2) * of_logprob, rtol=1e-5)
    # k3 = ref/p - 1 + log(p/ref): 1 - ref/p = 1/2.
    np.testing.assert_allclose(gradient("k3"), 0.5 * of_logprob, rtol=1e-5)


def test_what_an_algorithm_needs():
    assert needs_of((SFT(),)) == Needs()
    both = needs_of((FD(contrast=0.5), GRPO(reference=ReferenceKL(beta=0.1))))
    assert both.teacher == {"feedback", "wrong_feedback", "nothing"}
    assert both.old_logprobs
    assert both.advantage == "zscore"
    assert both.score == "all"
    with pytest.raises(ConfigError, match="different names, got"):
        needs_of((FD(), FD(kl_clip=1.0)))
    with pytest.raises(ConfigError, match="different names, got"):
        needs_of(())
    with pytest.raises(ConfigError, match="agree on advantage, got centred, zscore"):
        needs_of((GRPO(), GSPO(advantage="centred")))


def test_a_term_of_ones_own_is_of_one_kind():
    class Neither:
        name, weight, needs = "mine", 1.0, Needs()
        mask = normalizer = print

    class Both(Neither):
        rows = of_tokens = of_sequences = print

    class Reading(Neither):
        needs = Needs(teacher=frozenset({"nothing"}))
        of_sequences = print

    for term, message in (
        (Neither(), "got Neither"),
        (Both(), "got Both"),
        (Reading(), "no teacher for whole sequences, got mine"),
    ):
        with pytest.raises(ConfigError, match=message):
            needs_of((term,))


def test_a_part_that_the_batch_lacks_is_named():
    with pytest.raises(ConfigError, match="batch with feedback, which FD reads"):
        FD().mask(batch(feedback=None))
    mask = jnp.asarray(WRITTEN)
    with pytest.raises(ConfigError, match=r"with version, which FD\.importance_cap"):
        FD().rows(batch(version=None), mask, jnp.int32(0))
    with pytest.raises(ConfigError, match="with advantages, which GRPO reads"):
        GRPO().rows(batch(advantages=None), mask, jnp.int32(0))


def test_settings_that_contradict_each_other():
    with pytest.raises(ConfigError, match=r"FD\.contrast with a teacher that reads"):
        FD(contrast=1.0, reads="nothing")
    with pytest.raises(ConfigError, match=r"FD\.kl_clip with a divergence over"):
        FD(kl_clip=1.0, divergence="sampled_token")


def test_a_mixture_is_one_number():
    assert mixture(1.0, fd=FD(), policy_gradient=GRPO()) == (FD(),)
    assert mixture(0.0, fd=FD(), policy_gradient=GRPO()) == (GRPO(),)
    fd, grpo = mixture(0.25, fd=FD(), policy_gradient=GRPO())
    assert (fd.weight, grpo.weight) == (0.25, 0.75)
    fd, grpo = mixture(lambda step: step / 8, fd=FD(), policy_gradient=GRPO())
    assert (fd.weight(2), grpo.weight(2)) == (0.25, 0.75)
    with pytest.raises(ConfigError, match="expected share to be"):
        mixture(1.5, fd=FD(), policy_gradient=GRPO())
    with pytest.raises(ConfigError, match=r"terms of weight 1, got 2\.0 and 1\.0"):
        mixture(0.5, fd=FD(weight=2.0), policy_gradient=GRPO())
