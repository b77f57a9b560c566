"""The engine of slots against the whole forward, and itself."""

import doctest
import functools
import logging
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fdjax.errors import ConfigError, DataError
from fdjax.model import LoRA, Model, ModelConfig, adapt, init_adapters
from fdjax.sampling import (
    Sampler,
    SamplerClosedError,
    SamplingConfig,
    SlotSampler,
    SlotsConfig,
)
from fdjax.sampling.draw import draw
from fdjax.sharding import init_sharded, make_mesh

_V, _PAGE, _T = 24, 4, 12
_BOUND = 5e-5
"""Of a log-probability, between two ways to compute it in float32."""
_STOPPING = {"temperature": 0.8, "stop_tokens": (12, 14)}
_COMPANY = (
    {"slots": 1, "steps": 1, "blocks": 1},
    {"slots": 16, "steps": 64, "blocks": 8},
    {"capacity": 28},
)
"""How many others are sampled with a request."""
_SHAPE = {
    "vocab_size": _V,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_layers": 2,
    "num_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}


@functools.cache
def _case(dtype="float32"):
    """A model, its parameters, and ten prompts of 1 to 10 tokens."""
    model = Model(ModelConfig(**_SHAPE, dtype=dtype))
    params = jax.jit(model.init)(jax.random.key(0))
    # Sharper than at initialisation, so that a wrong distribution shows.
    params["embedding"] *= 1.5
    rng = np.random.default_rng(1)
    return model, params, [rng.integers(0, _V, n + 1).tolist() for n in range(10)]


def _sampler(mesh=None, dtype="float32", params=None, slots=4, longest=40, **settings):
    model, own, _ = _case(dtype)
    config = {
        name: settings.pop(name)
        for name in ("capacity", "steps", "blocks")
        if name in settings
    }
    sampler = SlotSampler(
        model,
        SamplingConfig(**({"max_new_tokens": 20} | settings)),
        SlotsConfig(
            **({"steps": 5, "blocks": 2} | config),
            slots=slots,
            page=_PAGE,
            longest=longest,
        ),
        mesh,
    )
    sampler.publish(own if params is None else params, 7)
    return sampler


def _key(number, seed=3):
    return jax.random.fold_in(jax.random.key(seed), number)


def _sample(sampler, prompts, budget=_T):
    futures = [
        sampler.submit(prompt, _key(number), max_new_tokens=budget)
        for number, prompt in enumerate(prompts)
    ]
    # As a training loop has it.
    with jax.transfer_guard("disallow"):
        sampler.drain()
    return [future.result(timeout=0) for future in futures]


@functools.cache
def _samples(**settings):
    return _sample(_sampler(**settings), _case()[2])


def _assert_same(got, want, atol=_BOUND):
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
        assert one.stop == other.stop
        for name in ("logprobs", "behaviour_logprobs", "entropy"):
            np.testing.assert_allclose(
                getattr(one, name), getattr(other, name), rtol=0, atol=atol
            )


def _plainly(**settings):
    """Of each prompt what is drawn from the whole forward's logits, token by token."""
    model, params, prompts = _case()
    config = SamplingConfig(max_new_tokens=_T, **settings)
    lengths = np.array([len(prompt) for prompt in prompts])
    tokens = np.zeros((len(prompts), lengths.max() + _T), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    keys = jax.numpy.stack([_key(row) for row in range(len(prompts))])
    temperature = jax.numpy.full(len(prompts), config.temperature, np.float32)

    @jax.jit
    def proceed(tokens, lengths, number):
        valid = np.arange(tokens.shape[1])[None] < lengths[:, None]
        logits = model.apply(params, tokens, valid=valid)
        last = logits[np.arange(len(prompts)), lengths - 1]
        folded = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
        return draw(folded, last, temperature, config)

    drawn = []
    for number in range(_T):
        drawn.append(jax.device_get(proceed(tokens, lengths, number)))
        tokens[np.arange(len(prompts)), lengths] = drawn[-1].token
        lengths = lengths + 1
    rows = []
    for row in range(len(prompts)):
        columns = {
            name: np.array([getattr(each, name)[row] for each in drawn])
            for name in drawn[0]._fields
        }
        ends = np.flatnonzero(np.isin(columns["token"], config.stop_tokens))
        length = ends[0] + 1 if len(ends) else _T
        rows.append({name: column[:length] for name, column in columns.items()})
    return rows


@pytest.mark.parametrize(
    "settings",
    [
        _STOPPING,
        {"temperature": 2.5, "top_k": 9, "top_p": 0.8, "stop_tokens": (3,)},
        {"min_p": 0.2, "stop_tokens": (3,)},
    ],
    ids=str,
)
def test_samples_are_those_of_the_whole_forward(settings):
    """More requests than slots, prompts of every length around a page's."""
    got = _samples(**settings)
    for sample, want in zip(got, _plainly(**settings), strict=True):
        np.testing.assert_array_equal(sample.tokens, want["token"])
        stopped = int(sample.tokens[-1]) in settings["stop_tokens"]
        assert sample.stop == ("stop" if stopped else "length")
        for mine, name in (
            (sample.logprobs, "logprob"),
            (sample.behaviour_logprobs, "behaviour"),
            (sample.entropy, "entropy"),
        ):
            np.testing.assert_allclose(mine, want[name], rtol=0, atol=_BOUND)
    if settings is _STOPPING:
        assert {sample.stop for sample in got} == {"stop", "length"}


@functools.cache
def _apply(dtype="float32"):
    return jax.jit(_case(dtype)[0].apply)


def _gap(params, samples, prompts, dtype="float32"):
    """The largest distance of log-probabilities from those of the full forward."""
    tokens = np.zeros((10, 40), np.int32)
    valid = np.zeros((10, 40), bool)
    for row, (sample, prompt) in enumerate(zip(samples, prompts, strict=True)):
        sequence = [*prompt, *sample.tokens]
        tokens[row, : len(sequence)], valid[row, : len(sequence)] = sequence, True
    logits = np.asarray(_apply(dtype)(params, tokens, valid=valid), np.float64)
    logits /= _STOPPING["temperature"]
    policy = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return max(
        np.abs(
            policy[row, len(prompt) - 1 + np.arange(len(sample.tokens)), sample.tokens]
            - sample.logprobs
        ).max()
        for row, (sample, prompt) in enumerate(zip(samples, prompts, strict=True))
    )


def test_logprobs_are_those_of_the_trainer():
    _, params, prompts = _case()
    assert _gap(params, _samples(**_STOPPING), prompts) < _BOUND


@pytest.mark.parametrize("settings", _COMPANY, ids=str)
def test_a_request_does_not_depend_on_what_else_is_sampled(settings):
    sampler = _sampler(**_STOPPING, **settings)
    _assert_same(_sample(sampler, _case()[2]), _samples(**_STOPPING))
    # Where pages for all are lacking, rows waited and began again.
    assert bool(sampler.use().preempted) == ("capacity" in settings)


def test_alone_again_and_after_others():
    """With other neighbours, in other slots, on pages that others had before."""
    want, prompts = _samples(**_STOPPING), _case()[2]
    sampler = _sampler(**_STOPPING)
    for number in (9, 2, 9):
        future = sampler.submit(prompts[number], _key(number), max_new_tokens=_T)
        sampler.drain()
        _assert_same([future.result(timeout=0)], [want[number]])
    # The last of them found all but its last page.
    assert sampler.use().reused == 8


@pytest.mark.parametrize("axes", [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_eight_devices_draw_the_same_tokens(axes):
    model, params, prompts = _case()
    mesh = make_mesh(**axes)
    sharded = init_sharded(
        make_mesh(data=1, fsdp=8), lambda _: params, model.logical_axes(), _key(0)
    )
    sampler = _sampler(mesh, params=sharded, slots=8, **_STOPPING)
    _assert_same(_sample(sampler, prompts), _samples(**_STOPPING))
    assert sampler.use().programs <= 3


@pytest.mark.parametrize(
    "settings",
    [{}, *_COMPANY, {"mesh": {"data": 2, "fsdp": 2, "tensor": 2}, "slots": 8}],
    ids=str,
)
def test_bfloat16_stays_within_its_bound(settings):
    """0.05 of a log-probability: each rounding is 2⁻⁹ of a number, logits are ±4.

    The trainer's attention rounds where pages have an online softmax. 0.023 was seen.
    """
    _, params, prompts = _case("bfloat16")
    mesh = {"mesh": make_mesh(**settings["mesh"])} if "mesh" in settings else {}
    sampler = _sampler(dtype="bfloat16", **(settings | mesh), **_STOPPING)
    samples = _sample(sampler, prompts)
    assert 1e-4 < _gap(params, samples, prompts, "bfloat16") < 0.05
    assert bool(sampler.use().preempted) == ("capacity" in settings)


def test_a_sequence_fills_the_models_context():
    """64 positions, the last of them for the last token that is read."""
    model, params, _ = _case()
    longest = _SHAPE["max_position_embeddings"]
    sampler, prompt = _sampler(longest=longest, max_new_tokens=longest), [1, 2, 3]
    future = sampler.submit(prompt, _key(0), max_new_tokens=longest - len(prompt))
    sampler.drain()
    sample = future.result(timeout=0)
    tokens = np.array([[*prompt, *sample.tokens]], np.int32)
    assert tokens.shape == (1, longest)
    logits = jax.jit(model.apply)(params, tokens, valid=np.ones(tokens.shape, bool))
    want = jax.nn.log_softmax(logits)[0, np.arange(len(prompt) - 1, longest - 1)]
    want = want[np.arange(len(sample.tokens)), sample.tokens]
    np.testing.assert_allclose(sample.logprobs, want, rtol=0, atol=_BOUND)


def test_a_groups_prompt_is_computed_once():
    prompt = np.random.default_rng(5).integers(0, _V, 18).tolist()
    sampler = _sampler(slots=8)
    group = _sample(sampler, [prompt] * 8)
    use = sampler.use()
    # Four full pages once; the two tokens after them by each.
    assert (use.computed, use.reused) == (16 + 8 * 2, 7 * 16)
    assert len({sample.tokens.tobytes() for sample in group}) > 4
    alone = [
        _sampler().submit(prompt, _key(number), max_new_tokens=_T) for number in (0, 7)
    ]
    assert not any(future.done() for future in alone)
    for number in (0, 7):
        sampler = _sampler()
        future = sampler.submit(prompt, _key(number), max_new_tokens=_T)
        sampler.drain()
        _assert_same([future.result(timeout=0)], [group[number]])


def test_the_next_turn_goes_on_from_the_last():
    _, params, prompts = _case()
    sampler, prompt = _sampler(**_STOPPING), prompts[6]
    first = sampler.submit(prompt, _key(6), max_new_tokens=_T)
    sampler.drain()
    said = first.result(timeout=0).tokens
    turn = [*prompt, *said.tolist(), 5, 6, 7]
    before = sampler.use()
    second = sampler.submit(turn, _key(1), max_new_tokens=_T)
    sampler.drain()
    # Of 7 + 12 + 3 tokens 18 were written, four whole pages.
    assert sampler.use().reused - before.reused == 16
    assert sampler.use().computed - before.computed == 6
    assert _gap(params, [second.result(timeout=0)], [turn]) < _BOUND


def test_a_long_prompt_does_not_stall_the_others():
    sampler = _sampler(blocks=1)
    short = sampler.submit([1, 2], _key(0), max_new_tokens=3)
    sampler.step()
    long = sampler.submit(list(range(20)), _key(1), max_new_tokens=3)
    while not long.done():
        waits = not short.done()
        sampler.step()
        # Five pages take five steps, and each brings the short one a token.
        assert not (waits and long.done())
    assert short.done()


def test_slots_stay_busy_while_requests_wait():
    rng = np.random.default_rng(8)
    # Most end early, some take the twentyfold.
    budgets = np.where(rng.random(96) < 0.1, 20, rng.integers(1, 5, 96)).tolist()
    sampler = _sampler(slots=8, blocks=8)
    futures = [
        sampler.submit([1 + number % 7], _key(number), max_new_tokens=budget)
        for number, budget in enumerate(budgets)
    ]
    while sampler.step():
        if sum(not future.done() for future in futures) > 8:
            busy = sampler.use().busy
    assert busy > 0.9
    lengths = [len(future.result(timeout=0).tokens) for future in futures]
    assert lengths == budgets


def test_few_programs_whatever_comes(caplog):
    caplog.set_level(logging.INFO, "fdjax.sampling")
    rng = np.random.default_rng(9)
    sampler = _sampler(slots=5, blocks=4, steps=6)
    with jax.log_compiles():
        for _ in range(3):
            _sample(sampler, [[1] * n for n in rng.integers(1, 25, 7)], budget=9)
            sampler.publish(_case()[1], 8)
    messages = [record.getMessage() for record in caplog.records]
    kinds = ("Compiling jit(_prefill)", "Compiling jit(_decode)")
    compiled = [text for text in messages if text.startswith(kinds)]
    # Blocks in ones, twos and fours, and slots.
    assert len(compiled) == sampler.use().programs <= 4
    assert any("sampling compiles program 1" in text for text in messages)


def test_new_weights_are_for_what_comes_after_them():
    _, params, prompts = _case()
    other = jax.tree.map(lambda leaf: leaf * 1.1, params)
    sampler = _sampler(**_STOPPING)
    first = [
        sampler.submit(prompt, _key(number), max_new_tokens=_T)
        for number, prompt in enumerate(prompts)
    ]
    sampler.step()
    sampler.publish(other, 8)
    first = [future.result(timeout=0) for future in first]
    second = _sample(sampler, prompts)
    _assert_same(first, _samples(**_STOPPING))
    _assert_same(second, _sample(_sampler(params=other, **_STOPPING), prompts))
    assert {sample.version for sample in first} == {7}
    assert {sample.version for sample in second} == {8}
    assert {one.tokens.tobytes() for one in first} != {
        one.tokens.tobytes() for one in second
    }


@pytest.mark.parametrize("spread", [False, True])
def test_training_may_donate_what_was_published(spread):
    """Even where it lies as sampling wants it."""
    _, params, prompts = _case()
    mesh = make_mesh(data=8) if spread else None
    own = jax.tree.map(lambda leaf: leaf + 0, params)
    if mesh is not None:
        own = jax.device_put(own, NamedSharding(mesh, PartitionSpec()))
    sampler = _sampler(mesh, params=own, slots=8 if spread else 4, **_STOPPING)
    jax.tree.map(lambda leaf: leaf.delete(), own)
    _assert_same(_sample(sampler, prompts), _samples(**_STOPPING))


@pytest.mark.parametrize("spread", [False, True])
def test_adapters_are_sampled_with_as_they_are_trained(spread):
    _, params, prompts = _case()
    adapters = init_adapters(jax.random.key(4), params, LoRA(rank=2))
    adapters = jax.tree.map(lambda leaf: leaf + 0.05, adapters)
    adapted = adapt(params, adapters)
    mesh = make_mesh(data=4, tensor=2) if spread else None
    sampler = _sampler(mesh, params=adapted, **_STOPPING)
    samples = _sample(sampler, prompts)
    assert _gap(adapted, samples, prompts) < _BOUND
    assert _gap(params, samples, prompts) > 1e-2


def test_what_cannot_be_served_fails_alone():
    prompts = _case()[2]
    sampler = _sampler(capacity=24, **_STOPPING)
    bad = [
        sampler.submit([], _key(0), max_new_tokens=4),
        sampler.submit([1, _V], _key(0), max_new_tokens=4),
        sampler.submit([1] * 21, _key(0), max_new_tokens=4),
        sampler.submit([1], _key(0), max_new_tokens=21),
        sampler.submit([1], jax.random.key(0, impl="rbg"), max_new_tokens=2),
    ]
    good = _sample(sampler, prompts)
    messages = [str(future.exception(timeout=0)) for future in bad]
    for message, expected in zip(
        messages,
        (
            "one or more token ids",
            "from 0 to 23, the model's vocabulary, got [24]",
            "fit 24 tokens, got 21 + 4",
            "max_new_tokens to be an integer from 1 to 20, got 21",
            "default kind",
        ),
        strict=True,
    ):
        assert expected in message
    assert isinstance(bad[2].exception(), DataError)
    _assert_same(good, _samples(**_STOPPING))


def test_a_request_of_one_token_and_a_stop_at_once():
    sampler = _sampler(stop_tokens=tuple(range(_V)))
    (one,) = _sample(sampler, [[1, 2, 3]])
    assert (len(one.tokens), one.stop) == (1, "stop")
    (one,) = _sample(_sampler(), [[1, 2, 3]], budget=1)
    assert (len(one.tokens), one.stop) == (1, "length")


def test_a_cancelled_request_frees_its_slot():
    prompts = _case()[2]
    sampler = _sampler(slots=1, **_STOPPING)
    running = sampler.submit([1], _key(50), max_new_tokens=20)
    waiting = sampler.submit([2], _key(51), max_new_tokens=20)
    kept = sampler.submit(prompts[4], _key(4), max_new_tokens=_T)
    sampler.step()
    assert running.cancel()
    assert waiting.cancel()
    sampler.drain()
    _assert_same([kept.result(timeout=0)], [_samples(**_STOPPING)[4]])
    assert running.cancelled()


def test_closing_fails_what_is_pending():
    with _sampler(slots=1) as sampler:
        futures = [sampler.submit([1], _key(n), max_new_tokens=20) for n in range(3)]
        sampler.step()
    late = sampler.submit([1], _key(0), max_new_tokens=2)
    for future in (*futures, late):
        with pytest.raises(SamplerClosedError, match="was closed"):
            future.result(timeout=0)
    for call in (sampler.step, lambda: sampler.publish(_case()[1], 8)):
        with pytest.raises(SamplerClosedError):
            call()


def test_a_breakdown_fails_what_is_pending():
    sampler = _sampler()
    future = sampler.submit([1], _key(0), max_new_tokens=2)
    jax.tree.map(lambda leaf: leaf.delete(), sampler._params)
    with pytest.raises(RuntimeError, match="deleted"):
        sampler.drain()
    with pytest.raises(SamplerClosedError, match=r"broke down: .*deleted"):
        future.result(timeout=0)


def test_impossible_settings_are_refused():
    model = _case()[0]
    sampling = SamplingConfig(max_new_tokens=4)
    for change, message in (
        ({"longest": 65}, "64 positions, got 65"),
        ({"page": 6}, "page to be a power of two, got 6"),
        ({"blocks": 3}, "blocks to be a power of two, got 3"),
        ({"slots": 0}, "slots"),
        ({"capacity": 0}, "capacity"),
    ):
        with pytest.raises(ConfigError, match=message):
            SlotSampler(model, sampling, SlotsConfig(**({"longest": 8} | change)))
    with pytest.raises(ConfigError, match="vocabulary size, 24"):
        SlotSampler(
            model,
            SamplingConfig(max_new_tokens=4, stop_tokens=(24,)),
            SlotsConfig(longest=8),
        )
    with pytest.raises(ConfigError, match="8 parts of the mesh's batch, got 4"):
        SlotSampler(model, sampling, SlotsConfig(longest=8, slots=4), make_mesh(data=8))
    sampler = SlotSampler(model, sampling, SlotsConfig(longest=8, slots=2))
    assert isinstance(sampler, Sampler)
    assert sampler.step() is False
    sampler.submit([1], _key(0), max_new_tokens=2)
    with pytest.raises(ConfigError, match="call publish first"):
        sampler.step()


def test_the_pages_example_runs():
    page = Path(__file__).parents[2] / "docs" / "sampling.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 8
    assert result.failed == 0
