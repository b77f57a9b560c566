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
_PLAIN = SamplingConfig(max_new_tokens=1)


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
            np.testing.assert_allclose(got, want, rtol=0, atol=5e-5)
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


def _draw(logits, config=_PLAIN, seed=0, temperature=1.0):
    """A token of each row, each with a key of its own."""
    keys = jax.random.split(jax.random.key(seed), len(logits))
    rows = jnp.full(len(logits), temperature, jnp.float32)
    return jax.jit(draw, static_argnums=3)(keys, jnp.asarray(logits), rows, config)


@pytest.mark.parametrize("size", [7, 24, 384], ids="{} tokens".format)
@pytest.mark.parametrize("top_k", [0, 5])
def test_tokens_have_the_policys_frequencies(size, top_k):
    """Pearson's χ² of 40,000 draws; sizes that fall into 7, 3 and 3 groups."""
    count = 40_000
    logits = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    config = SamplingConfig(max_new_tokens=1, top_k=top_k)
    drawn = _draw(np.tile(logits, (count, 1)), config, temperature=0.7)
    scaled = logits.astype(np.float64) / 0.7
    if top_k:
        scaled[np.argsort(scaled)[:-top_k]] = -np.inf
    want = np.exp(scaled - scaled.max())
    want *= count / want.sum()
    got = np.bincount(drawn.token, minlength=size)
    assert (got[want == 0] == 0).all()
    kept = want > 0
    freedom = kept.sum() - 1
    chi2 = ((got[kept] - want[kept]) ** 2 / want[kept]).sum()
    # Four standard deviations above the mean.
    assert chi2 < freedom + 4 * np.sqrt(2 * freedom)


def test_rounding_changes_no_token():
    """A flat distribution over many tokens, where summed probabilities would."""
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((256, 49_152)).astype(np.float32)
    other = logits + rng.normal(0, 1e-6, logits.shape).astype(np.float32)
    assert (logits != other).any(axis=1).all()
    np.testing.assert_array_equal(_draw(logits).token, _draw(other).token)


def test_a_row_does_not_depend_on_the_others():
    logits = np.random.default_rng(2).standard_normal((6, 48)).astype(np.float32)
    want = _draw(logits)
    logits[[0, 2, 4]] = [[np.nan], [3.0], [-np.inf]]
    logits[4, 17] = 0
    got = _draw(logits)
    np.testing.assert_array_equal(got.token[1::2], want.token[1::2])
    assert got.token[4] == 17
    # A row of NaN has a token, and says that it is none.
    assert 0 <= got.token[0] < 48
    assert np.isnan(got.logprob[0])
