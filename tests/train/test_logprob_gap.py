"""Attempts read again: the gap between sampler and trainer, the marginal entropy."""

import math

import jax
import numpy as np
import pytest

import scripted
from fdjax.feedback import ConstantFeedback
from fdjax.judge import Judgement
from fdjax.model import Model
from fdjax.sampling import SamplingConfig, SlotSampler, SlotsConfig
from fdjax.train import LogprobGap
from tiny import MODEL, PROBLEMS, mesh_of


class Anything:
    async def judge(self, attempts):
        return [Judgement(reward=0.0)] * len(attempts)


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0))


def rollout(params):
    sampler = SlotSampler(
        MODEL,
        SamplingConfig(max_new_tokens=8, temperature=0.7, top_k=9),
        SlotsConfig(longest=72, slots=4, page=16),
    )
    pipeline = scripted.pipeline(
        sampler, Anything(), ConstantFeedback(text="no"), tokens=8
    )
    return pipeline.collect(params, PROBLEMS[:2], jax.random.key(1), group_size=2)


@pytest.mark.parametrize("spread", [False, True])
def test_a_sampler_that_is_right(params, spread):
    model = Model(MODEL.config, mesh_of(data=2, fsdp=2)) if spread else MODEL
    metrics = LogprobGap(model).measure(params, rollout(params))
    assert 0 < metrics["rollout/logprob_gap"].value() < 1e-5
    assert 0 < metrics["rollout/logprob_gap_max"].value() < 5e-5
    assert metrics["rollout/logprob_gap"].weight == 4 * 8


def test_weights_of_another_step(params):
    others = jax.tree.map(lambda leaf: leaf * 1.1, params)
    metrics = LogprobGap(MODEL).measure(others, rollout(params))
    assert metrics["rollout/logprob_gap"].value() > 1e-3


def test_weights_that_are_not_finite(params):
    """NaN in a row means that nothing was measured; this was."""
    others = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), params)
    metrics = LogprobGap(MODEL).measure(others, rollout(params))
    assert metrics["rollout/logprob_gap"].value() == math.inf
    assert metrics["rollout/logprob_gap_max"].value() == math.inf


def test_the_marginal_entropy_is_that_of_the_mean_distribution(params):
    made = rollout(params)
    metrics = LogprobGap(MODEL).measure(params, made)
    (prompts, valid), responses = made.prompts, made.responses
    tokens = np.concatenate([prompts, responses.tokens], axis=1)
    all_valid = np.concatenate([valid, responses.valid], axis=1)
    hidden = jax.jit(MODEL.hidden)(params, tokens, valid=all_valid)
    # Position i predicts token i + 1.
    hidden = hidden[:, prompts.shape[1] - 1 : -1]
    logits = np.asarray(hidden @ MODEL.output_embeddings(params).T, np.float64) / 0.7
    likely = np.exp(logits - logits.max(axis=-1, keepdims=True))
    likely /= likely.sum(axis=-1, keepdims=True)
    mean = likely[responses.mask].mean(axis=0)
    expected = -(mean * np.log(mean)).sum()
    found = metrics["rollout/marginal_entropy"]
    assert found.value() == pytest.approx(expected, abs=1e-5)  # float32
    assert found.weight == 1
