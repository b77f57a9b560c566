import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.model import Model, ModelConfig

_PROMPTS, _WIDTH, _STEPS = 3, 7, 5


@functools.cache
def _case(unroll=False):
    """A model, left-padded prompts of 7, 4 and 1 tokens, and continuations."""
    model = Model(
        ModelConfig(
            vocab_size=40,
            hidden_size=32,
            intermediate_size=48,
            num_layers=3,
            num_heads=4,
            num_kv_heads=2,
            head_dim=8,
            unroll=unroll,
        )
    )
    params = model.init(jax.random.key(0))
    key = jax.random.key(1)
    prompts = jax.random.randint(key, (_PROMPTS, _WIDTH), 0, 40, jnp.int32)
    valid = jnp.arange(_WIDTH)[None] >= jnp.array([0, 3, 6])[:, None]
    return model, params, prompts, valid


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("unroll", [False, True])
def test_cached_decode_equals_the_full_forward(group, unroll):
    model, params, prompts, valid = _case(unroll)
    rows = _PROMPTS * group
    tokens = jax.random.randint(jax.random.key(2), (rows, _STEPS), 0, 40, jnp.int32)
    sequence = jnp.concatenate([jnp.repeat(prompts, group, axis=0), tokens], axis=1)
    everywhere = jnp.concatenate(
        [jnp.repeat(valid, group, axis=0), jnp.ones((rows, _STEPS), bool)], axis=1
    )
    want = model.apply(params, sequence, valid=everywhere)[:, _WIDTH - 1 :]

    logits, cache = model.prefill(
        params, prompts, valid=valid, slots=_STEPS, samples_per_prompt=group
    )
    got = [logits]
    decode = jax.jit(model.decode)
    for step in range(_STEPS):
        logits, cache = decode(
            params, cache, tokens[:, step], valid=jnp.ones((rows,), bool)
        )
        got.append(logits)
    np.testing.assert_allclose(jnp.stack(got, axis=1), want, rtol=1e-5, atol=1e-5)
    assert int(cache.used) == cache.slots == _STEPS


def test_decode_from_an_empty_cache_equals_the_full_forward():
    model, params, prompts, _ = _case()
    want = model.apply(params, prompts, valid=jnp.ones(prompts.shape, bool))
    cache = model.init_cache(_PROMPTS, _WIDTH)
    decode = jax.jit(model.decode)
    for step in range(_WIDTH):
        logits, cache = decode(
            params, cache, prompts[:, step], valid=jnp.ones((_PROMPTS,), bool)
        )
        np.testing.assert_allclose(logits, want[:, step], rtol=1e-5, atol=1e-5)


def test_a_row_that_pauses_is_as_if_it_had_not_been_asked():
    model, params, prompts, valid = _case()
    first, second = jnp.array([3, 4, 5]), jnp.array([6, 7, 8])
    every = jnp.ones((3,), bool)
    _, cache = model.prefill(params, prompts, valid=valid, slots=3)
    _, cache = model.decode(params, cache, first, valid=every)
    _, paused = model.decode(
        params, cache, jnp.array([9, -1, 9]), valid=jnp.array([True, False, True])
    )
    want, _ = model.decode(params, cache, second, valid=every)
    got, _ = model.decode(params, paused, second, valid=every)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=1e-5)
    assert np.abs(got[0] - want[0]).max() > 1e-3


def test_pad_ids_of_prompts_and_ended_rows_change_no_bit():
    model, params, prompts, valid = _case()
    ends = jnp.array([True, False, True])
    results = []
    for pad in (0, 39, -1):
        logits, cache = model.prefill(
            params, jnp.where(valid, prompts, pad), valid=valid, slots=2
        )
        token = jnp.where(ends, jnp.array([1, 2, 3]), pad)
        results.append((logits, *model.decode(params, cache, token, valid=ends)))
    for other in results[1:]:
        jax.tree.map(np.testing.assert_array_equal, results[0], other)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results[0]))
