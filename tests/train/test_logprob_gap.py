"""The gap between sampler and trainer, and its alarm."""

import logging

import jax
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
def test_a_sampler_that_is_right(params, spread, caplog):
    model = Model(MODEL.config, mesh_of(data=2, fsdp=2)) if spread else MODEL
    with caplog.at_level(logging.WARNING):
        metrics = LogprobGap(model).measure(params, rollout(params))
    assert 0 < metrics["rollout/logprob_gap"].value() < 1e-5
    assert 0 < metrics["rollout/logprob_gap_max"].value() < 5e-5
    assert metrics["rollout/logprob_gap"].weight == 4 * 8
    assert not caplog.records


def test_weights_of_another_step(params, caplog):
    others = jax.tree.map(lambda leaf: leaf * 1.1, params)
    with caplog.at_level(logging.WARNING):
        metrics = LogprobGap(MODEL).measure(others, rollout(params))
    assert metrics["rollout/logprob_gap"].value() > 1e-3
    [record] = caplog.records
    assert "within 0.001 nats of the trainer's on average" in record.getMessage()
