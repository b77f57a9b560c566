import functools
import math
from functools import partial

import jax
import jaxtyping
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

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
    return jax.tree.map(np.asarray, sampled)


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
    ],
    ids=str,
)
def test_logprobs_and_entropy_equal_those_of_the_full_forward(settings):
    sampled = _sample(group=4, stop_tokens=(3, 10), **settings)
    assert sampled.finished.any()
    assert not sampled.mask.all()
    policy = _log_softmax(_logits(sampled, 4) / settings.get("temperature", 1.0))
    kept = policy
    if k := settings.get("top_k"):
        kept = np.where(kept >= np.sort(kept, axis=-1)[..., -k, None], kept, -np.inf)
        kept = _log_softmax(kept)
    drawn_from = _log_softmax(_nucleus(kept, settings.get("top_p", 1.0)))
    entropy = -(np.exp(policy) * policy).sum(axis=-1)
    chosen, drawn = (
        np.take_along_axis(of, sampled.tokens[..., None], axis=-1)[..., 0]
        for of in (policy, drawn_from)
    )
    for got, want in (
        (sampled.logprobs, chosen),
        (sampled.behaviour_logprobs, drawn),
        (sampled.entropy, entropy),
    ):
        want = np.where(sampled.mask, want, 0.0)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    cut = "top_k" in settings or "top_p" in settings
    assert cut == (sampled.behaviour_logprobs != sampled.logprobs).any()


@pytest.mark.parametrize(
    "settings", [{"top_k": 1}, {"temperature": 1e-4}], ids=["top-k", "temperature"]
)
def test_greedy_takes_the_most_probable_token(settings):
    sampled = _sample(**settings)
    np.testing.assert_array_equal(sampled.tokens, _logits(sampled).argmax(axis=-1))
    np.testing.assert_allclose(sampled.behaviour_logprobs, 0.0, atol=1e-5)


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
    jax.tree.map(np.testing.assert_array_equal, first, again)
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


def test_with_a_key_for_each_prompt_a_row_depends_on_no_place():
    _, params, prompts, valid = _case()
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(3)))(np.arange(_P))
    both = _generate()(params, prompts, valid, keys, samples_per_prompt=2)
    order = np.array([2, 0, 3, 1])
    turned = _generate()(
        params, prompts[order], valid[order], keys[order], samples_per_prompt=2
    )
    rows = np.arange(2 * _P).reshape(_P, 2)
    np.testing.assert_array_equal(turned.tokens, both.tokens[rows[order].reshape(-1)])
    # Samples at one prompt differ, and a prompt's first is not that of one key for all.
    tokens = np.asarray(both.tokens)
    assert (tokens[0::2] != tokens[1::2]).any(axis=1).all()
    assert (tokens[0::2] != _sample().tokens).any()
    # Three prompts do not divide over four devices: keys are filled up with them.
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    spread = make_generate(_case()[0], SamplingConfig(max_new_tokens=_T), mesh)
    part = spread(params, prompts[:3], valid[:3], keys[:3], samples_per_prompt=2)
    np.testing.assert_array_equal(part.tokens, tokens[:6])


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


def test_equal_samplers_share_one_program(caplog):
    model, params, prompts, valid = _case()
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    sharded = init_sharded(
        mesh, lambda _: params, model.logical_axes(), jax.random.key(0)
    )
    # A state's key lies on the mesh, that of an evaluation nowhere in particular.
    everywhere = NamedSharding(mesh, PartitionSpec())
    keys = (jax.random.key(7), jax.device_put(jax.random.key(8), everywhere))
    with jax.log_compiles():
        for key in keys:
            # As a run builds an engine for each arm.
            sampling = SamplingConfig(max_new_tokens=2)
            generate = make_generate(Model(model.config), sampling, mesh)
            generate(sharded, prompts, valid, key)
    messages = [record.getMessage() for record in caplog.records]
    assert sum(text.startswith("Compiling jit(_generate)") for text in messages) == 1


def test_a_completion_that_cannot_fit_is_an_error():
    with pytest.raises(DataError, match=r"16 positions, got 6 \+ 11 tokens"):
        _sample(max_new_tokens=11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": True}, "max_new_tokens"),
        ({"temperature": 0.0}, "set top_k=1"),
        ({"temperature": 1e-46}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"stop_tokens": (3, -1)}, "stop_tokens"),
        ({"pad_token": -1}, "pad_token"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        SamplingConfig(**({"max_new_tokens": 4} | change))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 4.0),
        ("temperature", "0.6"),
        ("top_p", None),
        ("top_k", 2.5),
        ("stop_tokens", [3]),
        ("stop_tokens", (3, None)),
        ("pad_token", None),
    ],
)
def test_settings_of_another_type_are_refused(name, value):
    config = SamplingConfig(max_new_tokens=4)
    # Not by its constructor, whose annotations are checked under pytest alone.
    object.__setattr__(config, name, value)
    with pytest.raises(ConfigError, match=name):
        config.__post_init__()


@pytest.mark.parametrize("change", [{"stop_tokens": (3, _V)}, {"pad_token": _V}])
def test_tokens_that_the_model_does_not_have_are_refused(change):
    with pytest.raises(ConfigError, match=rf"vocabulary size, 24, got \[{_V}\]"):
        _generate(**change)


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_of_samples_below_one_is_refused(count):
    with pytest.raises(ConfigError, match="samples_per_prompt"):
        _sample(group=count)


@pytest.mark.parametrize(
    ("prompts", "valid", "message"),
    [
        (np.zeros((0, 3)), np.ones((0, 3)), r"got \(0, 3\)"),
        (np.zeros((2, 0)), np.ones((2, 0)), r"got \(2, 0\)"),
        ([[1, 2], [3, 4]], [[0, 1], [0, 0]], r"rows \[1\]"),
        ([[1, 2], [3, 4]], [[1, 0], [1, 1]], r"rows \[0\]: pad on the left"),
        ([[1, 2], [_V, -1]], [[1, 1], [1, 1]], r"0 to 23, .* got \[-1, 24\]"),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused(prompts, valid, message):
    with pytest.raises(DataError, match=message):
        _generate()(
            None,
            np.asarray(prompts, np.int32),
            np.asarray(valid, bool),
            jax.random.key(0),
        )


def test_anything_but_one_typed_key_is_refused(monkeypatch):
    # The library's own check is under test, so the type checker of the tests is off.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    _, params, prompts, valid = _case()
    for key in (jax.random.PRNGKey(0), jax.random.split(jax.random.key(0))):
        with pytest.raises(ConfigError, match="one typed PRNG key"):
            _generate()(params, prompts, valid, key)
