"""Ours against transformers' own models on the CPU; run by `make parity`."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from fdjax.checkpoint import load_pretrained
from fdjax.checkpoint.names import weights
from fdjax.losses import sft_loss
from fdjax.model import Model
from fdjax.ops import token_logprobs
from fdjax.sampling import SamplingConfig, SlotSampler, SlotsConfig
from parity.models import CASES, saved, theirs
from tiny import mesh_of

every_family = pytest.mark.parametrize("case", CASES, ids=str)


@functools.cache
def _ours(case, **settings):
    return load_pretrained(saved(case), mesh_of(), **settings)


@functools.cache
def _apply(case):
    return jax.jit(_ours(case).model.apply)


def _tokens(rows, length, seed=1):
    return np.random.default_rng(seed).integers(0, 99, (rows, length))


def _their_logits(case, tokens, **arguments):
    with torch.no_grad():
        out = theirs(case)(
            torch.tensor(tokens),
            **{name: torch.tensor(value) for name, value in arguments.items()},
        )
    return out.logits.numpy()


def _report(case, what, got, want, record):
    difference = float(np.abs(got - want).max())
    record("parity", (str(case), what, difference))
    return difference


@every_family
def test_logits(case, record_property):
    tokens = _tokens(2, 200)
    got = _apply(case)(
        _ours(case).params, tokens.astype(np.int32), valid=np.ones(tokens.shape, bool)
    )
    want = _their_logits(case, tokens)
    assert _report(case, "logits", np.asarray(got), want, record_property) < 1e-4


@pytest.mark.parametrize("name", ["llama3-scaled", "llama-yarn-deepseek", "qwen3"])
def test_logits_of_a_long_context(name, record_property):
    """4,096 tokens, in blocks of queries, at positions far beyond the original ones."""
    case = next(case for case in CASES if case.name == name)
    tokens = _tokens(1, 4_096)
    ours = _ours(case)
    model = Model(replace(ours.model.config, max_position_embeddings=4_096))
    got = jax.jit(model.apply)(
        ours.params, tokens.astype(np.int32), valid=np.ones(tokens.shape, bool)
    )
    want = _their_logits(case, tokens)
    assert _report(case, "4,096 tokens", np.asarray(got), want, record_property) < 1e-4


@every_family
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_with_padding(case, side, record_property):
    tokens = _tokens(4, 24)
    valid = np.arange(24) < np.array([24, 17, 9, 1])[:, None]
    valid = np.array(valid[:, ::-1]) if side == "left" else valid
    got = _apply(case)(_ours(case).params, tokens.astype(np.int32), valid=valid)
    positions = np.maximum(np.cumsum(valid, axis=1) - 1, 0)
    want = _their_logits(
        case, tokens, attention_mask=valid.astype(np.int64), position_ids=positions
    )
    kept = valid[..., None]
    got, want = np.where(kept, got, 0.0), np.where(kept, want, 0.0)
    assert _report(case, f"padded {side}", got, want, record_property) < 1e-4


@every_family
def test_logits_of_packed_sequences(case, record_property):
    lengths = [7, 20, 1, 12]
    rows = [_tokens(1, length, seed=length)[0] for length in lengths]
    packed = np.concatenate(rows)[None].astype(np.int32)
    segments = np.repeat(np.arange(4), lengths)[None].astype(np.int32)
    got = _apply(case)(
        _ours(case).params, packed, valid=np.ones(packed.shape, bool), segments=segments
    )[0]
    want = np.concatenate([_their_logits(case, row[None])[0] for row in rows])
    assert _report(case, "packed", np.asarray(got), want, record_property) < 1e-4


def _greedy(ours, prompts, count):
    """The sampler's likeliest tokens behind each prompt."""
    sampler = SlotSampler(
        ours.model,
        SamplingConfig(max_new_tokens=count, top_k=1),
        SlotsConfig(longest=128, slots=4, page=16),
    )
    sampler.publish(ours.params, 0)
    futures = [
        sampler.submit(prompt, jax.random.key(0), max_new_tokens=count)
        for prompt in prompts
    ]
    sampler.drain()
    return [future.result() for future in futures]


@every_family
def test_greedy_generation_over_64_tokens(case):
    ours = _ours(case)
    prompts = _tokens(3, 10).astype(np.int32)
    valid = np.arange(10) >= np.array([0, 3, 9])[:, None]
    rows = [prompt[keep] for prompt, keep in zip(prompts, valid, strict=True)]
    got = [sample.tokens for sample in _greedy(ours, rows, 64)]
    with torch.no_grad():
        want = theirs(case).generate(
            torch.tensor(np.where(valid, prompts, 0), dtype=torch.long),
            attention_mask=torch.tensor(valid, dtype=torch.long),
            max_new_tokens=64,
            do_sample=False,
            pad_token_id=0,
        )[:, 10:]
    np.testing.assert_array_equal(np.stack(got), want.numpy())


@every_family
def test_gradients_of_an_sft_step(case, record_property):
    ours = _ours(case)
    tokens = _tokens(2, 33).astype(np.int32)
    mask = jnp.asarray(np.arange(32) >= np.array([4, 11])[:, None])
    valid = jnp.ones((2, 32), bool)

    def loss(params):
        logits = ours.model.apply(params, jnp.asarray(tokens[:, :-1]), valid=valid)
        logprobs = token_logprobs(logits, jnp.asarray(tokens[:, 1:]))
        normalizer = jnp.float32(mask.sum())
        return sft_loss(logprobs, mask=mask, normalizer=normalizer)[0]

    got = jax.jit(jax.grad(loss))(ours.params)
    model = theirs(case)
    model.zero_grad()
    labels = np.where(mask, tokens[:, 1:], -100)
    logits = model(torch.tensor(tokens[:, :-1], dtype=torch.long)).logits
    torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(labels, dtype=torch.long).flatten()
    ).backward()
    want = {name: value.grad.numpy() for name, value in model.named_parameters()}

    worst = 0.0
    for weight in weights(ours.model.config):
        leaf = functools.reduce(lambda tree, key: tree[key], weight.path, got)
        leaf = leaf if weight.layer is None else leaf[weight.layer]
        tensor = weight.to_hf(np.asarray(leaf))
        assert tensor.shape == want[weight.tensor].shape
        worst = max(worst, float(np.abs(tensor - want[weight.tensor]).max()))
    record_property("parity", (str(case), "gradients", worst))
    largest = max(float(np.abs(value).max()) for value in want.values())
    assert worst < 1e-4 * min(1.0, largest)


@every_family
def test_pages_equal_the_full_forward(case):
    ours = _ours(case)
    tokens = _tokens(2, 10).astype(np.int32)
    for prompt, sample in zip(tokens, _greedy(ours, tokens, 30), strict=True):
        row = np.append(prompt, sample.tokens)[None].astype(np.int32)
        logits = _apply(case)(ours.params, row, valid=np.ones(row.shape, bool))
        logprobs = jax.nn.log_softmax(np.asarray(logits[0, 9:-1]), axis=-1)
        want = np.take_along_axis(np.asarray(logprobs), sample.tokens[:, None], axis=1)
        np.testing.assert_allclose(sample.logprobs, want[:, 0], atol=1e-4)


@every_family
def test_bfloat16_is_as_near_to_float32_as_transformers(case, record_property):
    """Both round each activation to 8 bits; ours keeps norms and RoPE in float32."""
    tokens = _tokens(2, 64)
    want = _their_logits(case, tokens)
    model = type(theirs(case))(theirs(case).config)
    model.load_state_dict(theirs(case).state_dict())
    with torch.no_grad():
        rounded = model.to(torch.bfloat16)(torch.tensor(tokens)).logits
    ours = _ours(case, dtype="bfloat16", param_dtype="bfloat16")
    got = jax.jit(ours.model.apply)(
        ours.params, tokens.astype(np.int32), valid=np.ones(tokens.shape, bool)
    )
    spread = float(want.std())
    error = float(np.abs(np.asarray(got) - want).mean()) / spread
    their_error = float(np.abs(rounded.float().numpy() - want).mean()) / spread
    record_property("parity", (str(case), "bfloat16", error))
    record_property("parity", (str(case), "theirs", their_error))
    assert error < 1.25 * their_error
    assert error < 0.05
