import functools

import jax
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
    prompts = np.random.default_rng(1).integers(0, 40, (_PROMPTS, _WIDTH), np.int32)
    valid = np.arange(_WIDTH)[None] >= np.array([0, 3, 6])[:, None]
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
    tokens = np.random.default_rng(2).integers(0, 40, (rows, _STEPS), np.int32)
    sequence = np.concatenate([np.repeat(prompts, group, axis=0), tokens], axis=1)
    everywhere = np.concatenate(
        [np.repeat(valid, group, axis=0), np.ones((rows, _STEPS), bool)], axis=1
    )
    want = apply(params, sequence, valid=everywhere)[:, _WIDTH - 1 :]

    logits, cache = prefill(
        params, prompts, valid=valid, slots=_STEPS, samples_per_prompt=group
    )
    got = [logits]
    for step in range(_STEPS):
        logits, cache = decode(
            params, cache, tokens[:, step], valid=np.ones((rows,), bool)
        )
        got.append(logits)
    np.testing.assert_allclose(np.stack(got, axis=1), want, rtol=1e-5, atol=1e-5)
    assert int(cache.used) == cache.slots == _STEPS


def test_decode_from_an_empty_cache_equals_the_full_forward():
    model, params, prompts, _ = _case()
    apply, _, decode = _jitted()
    want = apply(params, prompts, valid=np.ones(prompts.shape, bool))
    cache = model.init_cache(_PROMPTS, _WIDTH)
    for step in range(_WIDTH):
        logits, cache = decode(
            params, cache, prompts[:, step], valid=np.ones((_PROMPTS,), bool)
        )
        np.testing.assert_allclose(logits, want[:, step], rtol=1e-5, atol=1e-5)


def test_a_row_that_pauses_is_as_if_it_had_not_been_asked():
    _, params, prompts, valid = _case()
    _, prefill, decode = _jitted()
    first, second = np.array([3, 4, 5]), np.array([6, 7, 8])
    every = np.ones((3,), bool)
    _, cache = prefill(params, prompts, valid=valid, slots=_STEPS)
    _, cache = decode(params, cache, first, valid=every)
    _, paused = decode(
        params, cache, np.array([9, -1, 9]), valid=np.array([True, False, True])
    )
    want, _ = decode(params, cache, second, valid=every)
    got, _ = decode(params, paused, second, valid=every)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=1e-5)
    assert np.abs(got[0] - want[0]).max() > 1e-3


def test_pad_ids_of_prompts_and_ended_rows_change_no_bit():
    _, params, prompts, valid = _case()
    _, prefill, decode = _jitted()
    ends = np.array([True, False, True])
    results = []
    for pad in (0, 39, -1):
        logits, cache = prefill(
            params, np.where(valid, prompts, pad), valid=valid, slots=_STEPS
        )
        token = np.where(ends, np.array([1, 2, 3]), pad)
        results.append((logits, *decode(params, cache, token, valid=ends)))
    for other in results[1:]:
        jax.tree.map(np.testing.assert_array_equal, results[0], other)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results[0]))
