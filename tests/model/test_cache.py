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
    params = jax.jit(model.init)(jax.random.key(0))
    key = jax.random.key(1)
    prompts = jax.random.randint(key, (_PROMPTS, _WIDTH), 0, 40, jnp.int32)
    valid = jnp.arange(_WIDTH)[None] >= jnp.array([0, 3, 6])[:, None]
    return model, params, prompts, valid


@functools.cache
def _jitted(unroll=False):
    """The three functions under test, compiled."""
    model = _case(unroll)[0]
    prefill = jax.jit(model.prefill, static_argnames=("slots", "samples_per_prompt"))
    return jax.jit(model.apply), prefill, jax.jit(model.decode)


@pytest.mark.parametrize(("group", "unroll"), [(1, False), (2, False), (2, True)])
def test_cached_decode_equals_the_full_forward(group, unroll):
    _, params, prompts, valid = _case(unroll)
    apply, prefill, decode = _jitted(unroll)
    rows = _PROMPTS * group
    tokens = jax.random.randint(jax.random.key(2), (rows, _STEPS), 0, 40, jnp.int32)
    sequence = jnp.concatenate([jnp.repeat(prompts, group, axis=0), tokens], axis=1)
    everywhere = jnp.concatenate(
        [jnp.repeat(valid, group, axis=0), jnp.ones((rows, _STEPS), bool)], axis=1
    )
    want = apply(params, sequence, valid=everywhere)[:, _WIDTH - 1 :]

    logits, cache = prefill(
        params, prompts, valid=valid, slots=_STEPS, samples_per_prompt=group
    )
    got = [logits]
    for step in range(_STEPS):
        logits, cache = decode(
            params, cache, tokens[:, step], valid=jnp.ones((rows,), bool)
        )
        got.append(logits)
    np.testing.assert_allclose(jnp.stack(got, axis=1), want, rtol=1e-5, atol=1e-5)
    assert int(cache.used) == cache.slots == _STEPS


def test_decode_from_an_empty_cache_equals_the_full_forward():
    model, params, prompts, _ = _case()
    apply, _, decode = _jitted()
    want = apply(params, prompts, valid=jnp.ones(prompts.shape, bool))
    cache = model.init_cache(_PROMPTS, _WIDTH)
    for step in range(_WIDTH):
        logits, cache = decode(
            params, cache, prompts[:, step], valid=jnp.ones((_PROMPTS,), bool)
        )
        np.testing.assert_allclose(logits, want[:, step], rtol=1e-5, atol=1e-5)


def test_a_row_that_pauses_is_as_if_it_had_not_been_asked():
    _, params, prompts, valid = _case()
    _, prefill, decode = _jitted()
    first, second = jnp.array([3, 4, 5]), jnp.array([6, 7, 8])
    every = jnp.ones((3,), bool)
    _, cache = prefill(params, prompts, valid=valid, slots=_STEPS)
    _, cache = decode(params, cache, first, valid=every)
    _, paused = decode(
        params, cache, jnp.array([9, -1, 9]), valid=jnp.array([True, False, True])
    )
    want, _ = decode(params, cache, second, valid=every)
    got, _ = decode(params, paused, second, valid=every)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=1e-5)
    assert np.abs(got[0] - want[0]).max() > 1e-3


def test_pad_ids_of_prompts_and_ended_rows_change_no_bit():
    _, params, prompts, valid = _case()
    _, prefill, decode = _jitted()
    ends = jnp.array([True, False, True])
    results = []
    for pad in (0, 39, -1):
        logits, cache = prefill(
            params, jnp.where(valid, prompts, pad), valid=valid, slots=_STEPS
        )
        token = jnp.where(ends, jnp.array([1, 2, 3]), pad)
        results.append((logits, *decode(params, cache, token, valid=ends)))
    for other in results[1:]:
        jax.tree.map(np.testing.assert_array_equal, results[0], other)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results[0]))
