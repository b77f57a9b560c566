"""Tokens by their distribution, and what is said of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.model import Model, ModelConfig
from fdjax.sampling import SamplingConfig, SlotSampler, SlotsConfig
from fdjax.sampling.draw import draw

_V, _T = 24, 8


@functools.cache
def _case():
    """A model, its parameters and prompts of 6, 5, 4 and 3 tokens."""
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
    rng = np.random.default_rng(1)
    return model, params, [rng.integers(0, _V, 6 - row).tolist() for row in range(4)]


def _samples(seed=3, group=1, budget=_T, **settings):
    """Those of one prompt side by side."""
    model, params, prompts = _case()
    sampler = SlotSampler(
        model,
        SamplingConfig(max_new_tokens=_T, **settings),
        SlotsConfig(longest=16, slots=32, page=4, blocks=4),
    )
    sampler.publish(params, 1)
    futures = [
        sampler.submit(
            prompts[row // group],
            jax.random.fold_in(jax.random.key(seed), row),
            max_new_tokens=budget,
        )
        for row in range(4 * group)
    ]
    sampler.drain()
    return [future.result() for future in futures]


def _logits(samples, group=1):
    """float64 logits [N, V] of the full forward behind each token of each sample."""
    model, params, prompts = _case()
    tokens = np.zeros((len(samples), 16), np.int32)
    valid = np.zeros(tokens.shape, bool)
    for row, sample in enumerate(samples):
        sequence = [*prompts[row // group], *sample.tokens]
        tokens[row, : len(sequence)], valid[row, : len(sequence)] = sequence, True
    logits = np.asarray(jax.jit(model.apply)(params, tokens, valid=valid), np.float64)
    return [
        logits[row, len(prompts[row // group]) - 1 :][: len(sample.tokens)]
        for row, sample in enumerate(samples)
    ]


def _log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def _nucleus(logprobs, p):
    """float64 [.., V] with -inf outside the nucleus; no two tokens may tie."""
    order = np.argsort(-logprobs, axis=-1)
    ordered = np.take_along_axis(np.exp(logprobs), order, axis=-1)
    inside = np.empty_like(order, bool)
    before = ordered.cumsum(axis=-1) - ordered
    np.put_along_axis(inside, order, before < p, axis=-1)
    return np.where(inside, logprobs, -np.inf)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.05},
        {"top_k": 3},
        {"top_p": 0.6},
        {"temperature": 2.5, "top_k": 9, "top_p": 0.8},
        {"temperature": 0.7, "min_p": 0.2},
    ],
    ids=str,
)
def test_logprobs_and_entropy_equal_those_of_the_full_forward(settings):
    samples = _samples(group=4, stop_tokens=(3, 10), **settings)
    assert {sample.stop for sample in samples} == {"stop", "length"}
    cut = False
    for sample, logits in zip(samples, _logits(samples, 4), strict=True):
        policy = _log_softmax(logits / settings.get("temperature", 1.0))
        kept = policy
        if k := settings.get("top_k"):
            kept = np.where(
                kept >= np.sort(kept, axis=-1)[..., -k, None], kept, -np.inf
            )
            kept = _log_softmax(kept)
        kept = _log_softmax(_nucleus(kept, settings.get("top_p", 1.0)))
        if p := settings.get("min_p"):
            least = kept.max(axis=-1, keepdims=True) + np.log(p)
            kept = _log_softmax(np.where(kept >= least, kept, -np.inf))
        entropy = -(np.exp(policy) * policy).sum(axis=-1)
        chosen, drawn = (
            np.take_along_axis(of, sample.tokens[..., None], axis=-1)[..., 0]
            for of in (policy, kept)
        )
        for got, want in (
            (sample.logprobs, chosen),
            (sample.behaviour_logprobs, drawn),
            (sample.entropy, entropy),
        ):
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)
        cut |= (sample.behaviour_logprobs != sample.logprobs).any()
    assert cut == (settings != {"temperature": 0.05})


@pytest.mark.parametrize(
    "settings", [{"top_k": 1}, {"temperature": 1e-4}], ids=["top-k", "temperature"]
)
def test_greedy_takes_the_most_probable_token(settings):
    samples = _samples(**settings)
    for sample, logits in zip(samples, _logits(samples), strict=True):
        np.testing.assert_array_equal(sample.tokens, logits.argmax(axis=-1))
        np.testing.assert_allclose(sample.behaviour_logprobs, 0.0, atol=1e-5)


def test_frequencies_follow_the_softmax():
    draws = 4_000
    logits = np.random.default_rng(2).normal(0, 1.5, (4, _V)).astype(np.float32)
    temperature = np.array([1.0, 0.5, 2.0, 1.0], np.float32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.key(3), np.arange(4 * draws)
    )
    drawn = jax.jit(functools.partial(draw, config=SamplingConfig(max_new_tokens=1)))(
        keys, np.repeat(logits, draws, axis=0), jnp.repeat(temperature, draws)
    )
    tokens = np.asarray(drawn.token).reshape(4, draws)
    scaled = logits.astype(np.float64) / temperature[:, None]
    expected = np.exp(_log_softmax(scaled)) * draws
    for row in range(4):
        counts = np.bincount(tokens[row], minlength=_V)
        # Rare tokens are counted together, as the chi-square approximation asks.
        rare = expected[row] < 5
        observed = np.append(counts[~rare], counts[rare].sum())
        wanted = np.append(expected[row][~rare], expected[row][rare].sum())
        statistic = ((observed - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum()
        # Mean n, variance 2n for n degrees of freedom; five deviations above.
        freedom = len(wanted) - 1
        assert freedom > 6
        assert statistic < freedom + 5 * np.sqrt(2 * freedom)


def test_second_tokens_are_independent_of_first_ones():
    # Under one key reused for both steps, equal noise would repeat the token.
    samples = _samples(group=200, budget=2, temperature=100.0)
    same = np.mean([sample.tokens[0] == sample.tokens[1] for sample in samples])
    # At this temperature tokens are uniform: 1/24 ± 5 √(1/24 / 800).
    assert abs(same - 1 / _V) < 5 * np.sqrt(1 / _V / 800)


def test_rows_end_with_their_stop_token():
    stops = (3, 4)
    free, stopped = _samples(group=8), _samples(group=8, stop_tokens=stops)
    assert {sample.stop for sample in stopped} == {"stop", "length"}
    assert {sample.stop for sample in free} == {"length"}
    assert {len(sample.tokens) for sample in free} == {_T}
    for one, whole in zip(stopped, free, strict=True):
        hits = np.flatnonzero(np.isin(whole.tokens, stops))
        length = hits[0] + 1 if len(hits) else _T
        np.testing.assert_array_equal(one.tokens, whole.tokens[:length])
        np.testing.assert_allclose(
            one.logprobs, whole.logprobs[:length], rtol=0, atol=5e-5
        )
        assert len(one.logprobs) == len(one.entropy) == length
        assert (one.stop == "stop") == bool(len(hits))


def test_same_key_same_tokens_and_other_key_other_tokens():
    first, again, other = _samples(seed=5), _samples(seed=5), _samples(seed=6)
    for one, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.tokens, same.tokens)
        np.testing.assert_array_equal(one.logprobs, same.logprobs)
        assert (one.tokens != different.tokens).any()


def test_samples_of_one_prompt_differ():
    samples = _samples(group=8)
    for start in range(0, 32, 8):
        group = [sample.tokens.tobytes() for sample in samples[start : start + 8]]
        # Few likely tokens may repeat a row by chance; one shared key would repeat all.
        assert len(set(group)) > 4
