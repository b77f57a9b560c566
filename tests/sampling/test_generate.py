import functools

import jax
import numpy as np
import pytest

from fdjax.errors import ConfigError, DataError
from fdjax.model import Model, ModelConfig
from fdjax.sampling import SamplingConfig, make_generate
from fdjax.sharding import init_sharded, make_mesh

_V, _P, _S, _T = 24, 4, 6, 8


@functools.cache
def _case():
    """A model, its parameters and left-padded prompts of 6, 5, 4 and 3 tokens."""
    model = Model(
        ModelConfig(
            vocab_size=_V,
            hidden_size=16,
            intermediate_size=32,
            num_layers=2,
            num_heads=2,
            num_kv_heads=2,
            head_dim=8,
            max_position_embeddings=16,
        )
    )
    params = jax.jit(model.init)(jax.random.key(0))
    # Sharper than at initialisation, so that a wrong distribution shows.
    params["embedding"] *= 1.5
    prompts = np.random.default_rng(1).integers(0, _V, (_P, _S), np.int32)
    valid = np.arange(_S)[None] >= np.arange(_P)[:, None]
    return model, params, prompts, valid


@functools.cache
def _generate(**settings):
    return make_generate(
        _case()[0], SamplingConfig(**({"max_new_tokens": _T} | settings))
    )


def _sample(seed=3, group=1, rows=slice(None), **settings):
    _, params, prompts, valid = _case()
    sampled = _generate(**settings)(
        params,
        prompts[rows],
        valid[rows],
        jax.random.key(seed),
        samples_per_prompt=group,
    )
    return type(sampled)(*(np.asarray(field) for field in sampled))


@functools.cache
def _apply():
    return jax.jit(_case()[0].apply)


def _logits(sampled, group=1):
    """float64 logits [B, T, V] of the full forward that predict each sampled token."""
    _, params, prompts, valid = _case()
    tokens = np.concatenate([np.repeat(prompts, group, axis=0), sampled.tokens], 1)
    everywhere = np.concatenate([np.repeat(valid, group, axis=0), sampled.mask], 1)
    logits = _apply()(params, tokens, valid=everywhere)
    return np.asarray(logits, np.float64)[:, _S - 1 : -1]


def _log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


_STOPPING = {"temperature": 0.7, "stop_tokens": (3, 4)}


def test_logprobs_and_entropy_equal_those_of_the_full_forward():
    sampled = _sample(group=3, **_STOPPING)
    assert sampled.finished.any()
    assert not sampled.mask.all()
    want = _log_softmax(_logits(sampled, 3) / 0.7)
    chosen = np.take_along_axis(want, sampled.tokens[..., None], axis=-1)[..., 0]
    entropy = -(np.exp(want) * want).sum(axis=-1)
    np.testing.assert_allclose(
        sampled.logprobs, np.where(sampled.mask, chosen, 0.0), rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(
        sampled.entropy, np.where(sampled.mask, entropy, 0.0), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "settings", [{"top_k": 1}, {"temperature": 1e-4}], ids=["top-k", "temperature"]
)
def test_greedy_takes_the_most_probable_token(settings):
    sampled = _sample(**settings)
    np.testing.assert_array_equal(sampled.tokens, _logits(sampled).argmax(axis=-1))
    np.testing.assert_allclose(sampled.logprobs, 0.0, atol=1e-5)


def test_top_k_logprobs_are_those_of_the_truncated_distribution():
    sampled = _sample(group=16, top_k=3)
    logits = _logits(sampled, 16)
    third = np.sort(logits, axis=-1)[..., -3:-2]
    kept = np.where(logits >= third - 1e-5, logits, -np.inf)
    assert (np.isfinite(kept).sum(axis=-1) == 3).all()
    want = np.take_along_axis(_log_softmax(kept), sampled.tokens[..., None], axis=-1)[
        ..., 0
    ]
    np.testing.assert_allclose(sampled.logprobs, want, rtol=0, atol=1e-5)
    # The entropy is the whole distribution's.
    whole = _log_softmax(logits)
    np.testing.assert_allclose(
        sampled.entropy, -(np.exp(whole) * whole).sum(axis=-1), rtol=0, atol=1e-5
    )


def test_top_p_samples_stay_in_the_nucleus():
    sampled = _sample(group=16, top_p=0.5)
    probabilities = np.exp(_log_softmax(_logits(sampled, 16)))
    chosen = np.take_along_axis(probabilities, sampled.tokens[..., None], axis=-1)
    # More probable tokens hold less than half, or the nucleus had ended before.
    above = np.where(probabilities > chosen + 1e-6, probabilities, 0.0).sum(axis=-1)
    assert (above < 0.5 + 1e-5).all()
    # The nucleus holds at least half, so dividing by its mass at most doubles.
    ratio = np.exp(sampled.logprobs) / chosen[..., 0]
    assert (ratio > 1 - 1e-4).all()
    assert (ratio < 2 + 1e-4).all()
    assert ratio.max() > 1.2


def test_frequencies_follow_the_softmax():
    draws = 4_000
    sampled = _sample(group=draws, max_new_tokens=1)
    _, params, prompts, valid = _case()
    logits = np.asarray(_apply()(params, prompts, valid=valid), np.float64)[:, -1]
    expected = np.exp(_log_softmax(logits)) * draws
    tokens = sampled.tokens.reshape(_P, draws)
    for row in range(_P):
        counts = np.bincount(tokens[row], minlength=_V)
        # Rare tokens are counted together, as the chi-square approximation asks.
        rare = expected[row] < 5
        observed = np.append(counts[~rare], counts[rare].sum())
        wanted = np.append(expected[row][~rare], expected[row][rare].sum())
        statistic = ((observed - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum()
        # Mean n, variance 2n for n degrees of freedom; five deviations above.
        freedom = len(wanted) - 1
        assert freedom > 10
        assert statistic < freedom + 5 * np.sqrt(2 * freedom)


def test_second_tokens_are_independent_of_first_ones():
    # Under one key reused for both steps, equal noise would repeat the token.
    sampled = _sample(group=500, max_new_tokens=2, temperature=100.0)
    same = (sampled.tokens[:, 0] == sampled.tokens[:, 1]).mean()
    # At this temperature tokens are uniform: 1/24 ± 5 √(1/24 / 2000).
    assert abs(same - 1 / _V) < 5 * np.sqrt(1 / _V / (500 * _P))


def test_rows_end_with_their_stop_token():
    stops = (3, 4)
    free, stopped = _sample(group=8), _sample(group=8, stop_tokens=stops, pad_token=9)
    assert stopped.finished.any()
    assert not stopped.finished.all()
    assert not free.finished.any()
    assert free.mask.all()
    for row in range(8 * _P):
        hits = np.flatnonzero(np.isin(free.tokens[row], stops))
        length = hits[0] + 1 if len(hits) else _T
        np.testing.assert_array_equal(
            stopped.tokens[row],
            np.append(free.tokens[row, :length], [9] * (_T - length)),
        )
        np.testing.assert_array_equal(stopped.mask[row], np.arange(_T) < length)
        np.testing.assert_allclose(
            stopped.logprobs[row, :length],
            free.logprobs[row, :length],
            rtol=0,
            atol=1e-6,
        )
        assert (stopped.logprobs[row, length:] == 0).all()
        assert (stopped.entropy[row, length:] == 0).all()
        assert stopped.finished[row] == bool(len(hits))


def test_a_stop_at_the_first_token_ends_the_row_with_one_token():
    sampled = _sample(stop_tokens=tuple(range(_V)))
    np.testing.assert_array_equal(sampled.mask.sum(axis=1), 1)
    assert sampled.finished.all()


def test_same_key_same_tokens_and_other_key_other_tokens():
    first, again, other = _sample(seed=5), _sample(seed=5), _sample(seed=6)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (first.tokens != other.tokens).any(axis=1).all()


def test_a_row_does_not_depend_on_other_rows():
    every, first = _sample(), _sample(rows=slice(0, 2))
    np.testing.assert_array_equal(every.tokens[:2], first.tokens)
    np.testing.assert_allclose(every.logprobs[:2], first.logprobs, rtol=0, atol=1e-5)


def test_samples_of_one_prompt_differ():
    tokens = _sample(group=8).tokens.reshape(_P, 8, _T)
    for group in tokens:
        # Few likely tokens may repeat a row by chance; one shared key would repeat all.
        assert len(np.unique(group, axis=0)) > 4


def test_a_shared_prefill_equals_repeated_prompts():
    _, params, prompts, valid = _case()
    shared = _sample(group=3, **_STOPPING)
    repeated = _generate(**_STOPPING)(
        params,
        np.repeat(prompts, 3, axis=0),
        np.repeat(valid, 3, axis=0),
        jax.random.key(3),
    )
    np.testing.assert_array_equal(shared.tokens, repeated.tokens)
    np.testing.assert_array_equal(shared.mask, repeated.mask)
    np.testing.assert_allclose(shared.logprobs, repeated.logprobs, rtol=0, atol=1e-5)


def test_padding_of_prompts_changes_no_bit():
    _, params, prompts, valid = _case()
    results = [
        _generate()(params, np.where(valid, prompts, pad), valid, jax.random.key(3))
        for pad in (0, -1)
    ]
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_eight_devices_draw_the_same_tokens():
    model, params, prompts, valid = _case()
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    sharded = init_sharded(
        mesh, lambda _: params, model.logical_axes(), jax.random.key(0)
    )
    config = SamplingConfig(max_new_tokens=_T, **_STOPPING)
    generate = make_generate(model, config, mesh)
    # Host arrays, as the rollout passes them.
    got = generate(
        sharded,
        np.asarray(prompts),
        np.asarray(valid),
        jax.random.key(3),
        samples_per_prompt=3,
    )
    want = _sample(group=3, **_STOPPING)
    assert len(got.tokens.sharding.device_set) == 8
    np.testing.assert_array_equal(got.tokens, want.tokens)
    np.testing.assert_allclose(got.logprobs, want.logprobs, rtol=0, atol=1e-5)
    # Three prompts do not divide over the four parts of the batch: they are filled up.
    part = generate(
        sharded, prompts[:3], valid[:3], jax.random.key(3), samples_per_prompt=3
    )
    np.testing.assert_array_equal(part.tokens, want.tokens[:9])


def test_a_completion_that_cannot_fit_is_an_error():
    with pytest.raises(DataError, match=r"16 positions, got 6 \+ 11 tokens"):
        _sample(max_new_tokens=11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": 0.0}, "set top_k=1"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        SamplingConfig(**({"max_new_tokens": 4} | change))
