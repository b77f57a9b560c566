"""Objectives on the samples of the policy itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.errors import ConfigError
from fdjax.rollout import PolicyBatch
from fdjax.sampling import SamplingConfig, make_generate
from fdjax.train import fd_objective, grpo_objective
from tiny import MODEL, distillation_data


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
    generate = make_generate(MODEL, SamplingConfig(max_new_tokens=6, **settings))
    sampled = generate(params(), prompts, valid, jax.random.key(1))
    return PolicyBatch(
        prompts=prompts,
        prompt_valid=valid,
        responses=sampled.tokens,
        response_valid=sampled.mask,
        mask=sampled.mask,
        old_logprobs=sampled.logprobs,
        advantages=jnp.array([1.0, -1.0, 2.0, -2.0]),
        sampling=sampled.sampling,
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"top_p": 0.9},
        {"temperature": 0.6, "top_k": 20, "top_p": 0.8},
    ],
    ids=str,
)
def test_on_policy_the_ratio_is_one(settings):
    objective = grpo_objective(
        MODEL,
        clip_low=0.0,
        clip_high=0.0,
        temperature=settings.get("temperature", 1.0),
    )
    loss, metrics = jax.jit(objective)(
        params(), None, policy_batch(**settings), jnp.float32(24)
    )
    # r - 1 - log r is half of log² r: of at most 1e-5 it is 5e-11.
    assert metrics["grpo/kl_k3"].value() < 5e-11
    assert metrics["grpo/log_ratio"].value() == pytest.approx(0.0, abs=1e-5)
    # -(1 - 1 + 2 - 2) · 6 tokens / 24
    assert loss == pytest.approx(0.0, abs=1e-5)


def test_a_batch_sampled_at_another_temperature_is_refused():
    objective = grpo_objective(MODEL, clip_low=0.2, clip_high=0.2, temperature=1.0)
    sampling = SamplingConfig(max_new_tokens=6, temperature=0.6)
    batch = policy_batch(top_p=0.9)._replace(sampling=sampling)
    with pytest.raises(ConfigError, match=r"of the sampler, 0\.6, got 1\.0"):
        jax.eval_shape(objective, params(), None, batch, jnp.float32(1))
    distillation = distillation_data()._replace(sampling=sampling)
    with pytest.raises(ConfigError, match=r"of the sampler, 0\.6, got 1\.0"):
        jax.eval_shape(
            fd_objective(MODEL), params(), params(), distillation, jnp.float32(1)
        )
