"""Objectives on the samples of the policy itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fdjax.data.packing import pad_right
from fdjax.errors import ConfigError
from fdjax.model import Model
from fdjax.rollout import Batch
from fdjax.sampling import SamplingConfig, SlotSampler, SlotsConfig
from fdjax.train import (
    FD,
    GRPO,
    GSPO,
    SFT,
    Clipped,
    EMATeacher,
    OptimizerConfig,
    ReferenceKL,
    init_state,
    make_objective,
    make_optimizer,
    make_train_step,
    mixture,
)
from tiny import MODEL, TOKENIZER, distillation_data, mesh_of


@functools.cache
def params():
    # Sharper than at initialisation, so that a cut distribution is another one.
    fresh = jax.jit(MODEL.init)(jax.random.key(0))
    return {**fresh, "embedding": fresh["embedding"] * 3}


@functools.cache
def policy_batch(**settings):
    """Samples of four rows with advantages of both signs."""
    prompts = np.arange(1, 13, dtype=np.int32).reshape(4, 3)
    valid = np.ones_like(prompts, bool)
    config = SamplingConfig(max_new_tokens=6, **settings)
    sampler = SlotSampler(MODEL, config, SlotsConfig(longest=16, slots=4, page=4))
    sampler.publish(params(), 0)
    futures = [
        sampler.submit(prompt, jax.random.key(row), max_new_tokens=6)
        for row, prompt in enumerate(prompts)
    ]
    sampler.drain()
    samples = [future.result() for future in futures]
    responses, written = pad_right(
        [each.tokens for each in samples], width=6, pad=TOKENIZER.pad_token_id
    )
    logprobs = np.zeros(written.shape, np.float32)
    logprobs[written] = np.concatenate([each.logprobs for each in samples])
    return Batch(
        prompts=prompts,
        prompt_valid=valid,
        responses=responses,
        response_valid=written,
        written=written,
        known=np.ones(4, bool),
        passed=np.array([True, False, True, False]),
        old_logprobs=logprobs,
        version=np.zeros(4, np.int32),
        advantages=jnp.array([1.0, -1.0, 2.0, -2.0]),
        sampling=config,
    )


def evaluated(objective, batch, *, weights=None, teacher=None, step=0):
    """Loss and metrics with the batch's own normalizers."""

    @jax.jit
    def run(batch, step):
        normalizers = objective.normalizers(batch)
        return objective.loss(weights, teacher, batch, normalizers, step)

    weights = weights or params()
    return run(batch, jnp.int32(step))


@pytest.mark.parametrize(
    "settings",
    [
        {"top_p": 0.9},
        {"temperature": 0.6, "top_k": 20, "top_p": 0.8},
    ],
    ids=str,
)
def test_on_policy_the_ratio_is_one(settings):
    term = GRPO(surrogate=Clipped(low=0.0, high=0.0))
    temperature = settings.get("temperature", 1.0)
    objective = make_objective(MODEL, (term,), temperature=temperature)
    loss, metrics = evaluated(objective, policy_batch(**settings))
    # r - 1 - log r is half of log² r: of at most 1e-5 it is 5e-11.
    assert metrics["grpo/kl_k3"].value() < 5e-11
    assert metrics["grpo/log_ratio"].value() == pytest.approx(0.0, abs=1e-5)
    # -(1 - 1 + 2 - 2) · 6 tokens / 24
    assert loss == pytest.approx(0.0, abs=1e-5)


def test_a_batch_sampled_at_another_temperature_is_refused():
    sampling = SamplingConfig(max_new_tokens=6, temperature=0.6)
    batch = policy_batch(top_p=0.9)._replace(sampling=sampling)
    objective = make_objective(MODEL, (GRPO(),), temperature=1.0)
    with pytest.raises(ConfigError, match=r"of the sampler, 0\.6, got 1\.0"):
        evaluated(objective, batch)


def test_the_temperature_is_that_of_the_sampler():
    sampling = SamplingConfig(max_new_tokens=6, temperature=0.6)
    batch = policy_batch(top_p=0.9)
    by_batch, _ = evaluated(
        make_objective(MODEL, (GRPO(),)), batch._replace(sampling=sampling)
    )
    given, _ = evaluated(
        make_objective(MODEL, (GRPO(),), temperature=0.6),
        batch._replace(sampling=None),
    )
    plain, _ = evaluated(make_objective(MODEL, (GRPO(),)), batch)
    assert float(by_batch) == float(given) != float(plain)


@functools.cache
def teacher():
    return jax.jit(MODEL.init)(jax.random.key(9))


@functools.cache
def student():
    return jax.jit(MODEL.init)(jax.random.key(0))


def mixed_batch():
    """Attempts with rewards, feedback and old log-probabilities of their own."""
    batch = distillation_data()
    rng = np.random.default_rng(4)
    wrong = rng.permutation(batch.feedback.prompts)
    return batch._replace(
        # A fresh model gives each of 304 tokens about the same: ratios are near 1.
        old_logprobs=rng.normal(-5.7, 0.3, batch.written.shape).astype(np.float32),
        advantages=rng.normal(size=8).astype(np.float32),
        version=np.zeros(8, np.int32),
        pass_rate=np.repeat(np.float32([0.5, 0.25]), 4),
        wrong_feedback=batch.feedback._replace(prompts=wrong),
    )


def test_terms_add_up_each_over_its_own_tokens():
    """Losses, gradients and metrics of the sum are those of the terms by themselves."""
    terms = {
        "fd": FD(route="failed", weight=0.25, kl_clip=2.0, contrast=0.5),
        "grpo": GRPO(weight=3.0, reference=ReferenceKL(beta=0.1)),
        "gspo": GSPO(weight=0.5),
        "sft": SFT(),
    }

    def gradient(chosen):
        objective = make_objective(MODEL, chosen, temperature=0.7)

        @jax.jit
        def run(params, teacher, batch):
            normalizers = objective.normalizers(batch)
            return jax.value_and_grad(objective.loss, has_aux=True)(
                params, teacher, batch, normalizers, jnp.int32(3)
            )

        return run(student(), teacher(), mixed_batch())

    (loss, metrics), slope = gradient(tuple(terms.values()))
    alone = {name: gradient((term,)) for name, term in terms.items()}
    assert loss == pytest.approx(sum(float(one[0][0]) for one in alone.values()))
    for total, *parts in zip(
        *map(jax.tree.leaves, [slope, *(one[1] for one in alone.values())]),
        strict=True,
    ):
        np.testing.assert_allclose(total, sum(parts), rtol=1e-4, atol=1e-6)
    for (_, of_term), _ in alone.values():
        for name, mean in of_term.items():
            if name != "train/entropy":
                assert metrics[name].value() == pytest.approx(mean.value(), rel=1e-4)
                assert metrics[name].weight == mean.weight
    # The normalizers differ: failed attempts, all, sequences, and those that passed.
    batch = mixed_batch()
    objective = make_objective(MODEL, tuple(terms.values()))
    normalizers = jax.jit(objective.normalizers)(batch)
    heard = batch.feedback.mask & ~batch.passed[:, None]
    assert {name: float(value) for name, value in normalizers.items()} == {
        "fd": heard.sum(),
        "grpo": batch.written.sum(),
        "gspo": 8,
        "sft": batch.written[batch.passed].sum(),
    }


@functools.cache
def stepped(on=(1, 1, 1), microbatches=1):
    """Metrics of two steps of a mixture with all kinds of terms, and the parameters."""
    mesh = mesh_of(*on)
    model = Model(MODEL.config, mesh)
    teacher = EMATeacher(rate=0.25)
    terms = (
        FD(route="failed", contrast=0.5, question_weights="variance"),
        GRPO(aggregation="sequence", reference=ReferenceKL(beta=0.1)),
        GSPO(weight=optax.linear_schedule(1.0, 0.5, 2)),
        SFT(weight=0.5),
    )
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3))
    step = make_train_step(
        model,
        make_objective(model, terms),
        optimizer,
        mesh,
        teacher=teacher,
        microbatches=microbatches,
    )
    state = init_state(model, optimizer, mesh, jax.random.key(0), teacher=teacher)
    rows = []
    for _ in range(2):
        state, metrics = step(state, mixed_batch())
        rows.append({name: mean.value() for name, mean in metrics.items()})
    return rows, jax.tree.map(np.asarray, state.params)


@pytest.mark.parametrize(
    "layout", [{"microbatches": 4}, {"on": (2, 2, 2)}], ids=["microbatches", "devices"]
)
def test_a_mixture_is_the_same_however_it_is_cut(layout):
    whole, params = stepped()
    parts, same = stepped(**layout)
    for one, other in zip(whole, parts, strict=True):
        # Microbatches are as wide as their rows.
        narrower = {"train/padding": other["train/padding"]}
        assert other["train/padding"] <= one["train/padding"]
        assert one | narrower == pytest.approx(other, rel=2e-4, abs=1e-5)
    # Adam divides by the root of tiny squares; see test_step.py.
    for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-3 * 0.1)


def test_a_schedule_moves_the_weight_with_the_step():
    share = optax.linear_schedule(0.0, 1.0, 4)
    terms = mixture(share, fd=FD(importance_cap=None), policy_gradient=GRPO())
    objective = make_objective(MODEL, terms)
    batch = mixed_batch()

    losses = [
        evaluated(objective, batch, weights=student(), teacher=teacher(), step=step)
        for step in (0, 3, 4)
    ]
    ends = [
        float(
            evaluated(
                make_objective(MODEL, (term,)),
                batch,
                weights=student(),
                teacher=teacher(),
            )[0]
        )
        for term in (GRPO(), FD(importance_cap=None))
    ]
    assert losses[0][0] == pytest.approx(ends[0], rel=1e-5)
    assert losses[1][0] == pytest.approx(0.25 * ends[0] + 0.75 * ends[1], rel=1e-5)
    assert losses[2][0] == pytest.approx(ends[1], rel=1e-5)


def test_the_students_pass_is_one_and_a_teacher_passes_where_it_is_read(monkeypatch):
    passes = []
    hidden = type(MODEL).hidden

    def counted(self, weights, tokens, **rest):
        passes.append("teacher" if weights is teacher() else "student")
        return hidden(self, weights, tokens, **rest)

    monkeypatch.setattr(type(MODEL), "hidden", counted)

    def counts(*terms):
        passes.clear()
        objective = make_objective(MODEL, terms)
        batch = mixed_batch()
        evaluated(objective, batch, teacher=teacher())
        return passes.count("student"), passes.count("teacher")

    assert counts(SFT(), GRPO(), GSPO()) == (1, 0)
    assert counts(FD(), GRPO()) == (1, 1)
    assert counts(FD(contrast=1.0), GRPO(reference=ReferenceKL(beta=0.1))) == (1, 3)
    assert counts(FD(reads="nothing"), GRPO(reference=ReferenceKL(beta=1.0))) == (1, 1)
