"""The kernel's arithmetic, run as plain JAX; tests/tpu compiles it for TPUs."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from fdjax.ops import Chunking, chunked_logprobs
from fdjax.ops.fused_logprobs import fused_logprobs
from tiny import mesh_of

SHAPES = {
    "ragged": (3, 171, 33, 1_100),
    "small": (1, 5, 8, 40),
    "even": (2, 256, 128, 512),
}


def _inputs(batch, length, width, vocabulary, dtype=np.float32):
    rng = np.random.default_rng(0)
    hidden = rng.normal(0, 1, (batch, length, width))
    mask = rng.random((batch, length)) < 0.8
    hidden[~mask] = np.nan
    arrays = {
        "hidden": hidden.astype(dtype),
        "head": rng.normal(0, 3 / width**0.5, (vocabulary, width)).astype(dtype),
        "tokens": rng.integers(0, vocabulary, (batch, length)),
        "mask": mask,
    }
    return jax.tree.map(jnp.asarray, arrays)


def _exact(batch, temperature=1.0, soft_cap=None):
    """Float64 NumPy."""
    batch = jax.tree.map(np.asarray, batch)
    logits = batch["hidden"].astype(np.float64) @ batch["head"].astype(np.float64).T
    if soft_cap is not None:
        logits = soft_cap * np.tanh(logits / soft_cap)
    logits /= temperature
    logits -= logits.max(-1, keepdims=True)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(logprobs, batch["tokens"][..., None], -1)[..., 0]
    entropies = -(np.exp(logprobs) * logprobs).sum(-1)
    return [np.where(batch["mask"], values, 0) for values in (chosen, entropies)]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.7}, {"soft_cap": 2.0, "temperature": 1.5}],
    ids=str,
)
def test_equals_float64(shape, settings):
    batch = _inputs(*shape)
    got = fused_logprobs(**batch, **settings, interpret=True)
    for values, want in zip(got, _exact(batch, **settings), strict=True):
        np.testing.assert_allclose(values, want, rtol=2e-5, atol=1e-5)


def test_bfloat16_rounds_no_more_than_its_inputs():
    batch = _inputs(*SHAPES["even"], dtype=ml_dtypes.bfloat16)
    got = fused_logprobs(**batch, interpret=True)
    for values, want in zip(got, _exact(batch), strict=True):
        np.testing.assert_allclose(values, want, rtol=2e-5, atol=1e-5)


def test_great_logits_stay_finite():
    batch = _inputs(*SHAPES["ragged"])
    batch["head"] *= 1e4
    got = fused_logprobs(**batch, interpret=True)
    for values, want in zip(got, _exact(batch), strict=True):
        np.testing.assert_allclose(values, want, rtol=1e-5, atol=0.05)


@pytest.mark.parametrize("seen_rows", [None, 11])
@pytest.mark.parametrize(
    "sizes", [{"fsdp": 4}, {"tensor": 4}, {"data": 2, "fsdp": 2, "tensor": 2}]
)
def test_shards_add_up(sizes, seen_rows):
    """A row's maximum, sums and token may each lie on another device."""
    batch = _inputs(4, 40, 16, 96)
    shared = () if seen_rows is None else ("fsdp",)
    axes = {name for name, size in sizes.items() if size > 1}
    fused = jax.jit(
        functools.partial(
            fused_logprobs,
            mesh=mesh_of(**sizes),
            batch_axes=tuple(sorted(axes - {"tensor"})),
            vocabulary_axes=tuple(sorted(axes & {"tensor", *shared}, reverse=True)),
            seen_rows=seen_rows,
            interpret=True,
        )
    )
    for values, want in zip(fused(**batch), _exact(batch), strict=True):
        np.testing.assert_allclose(values, want, rtol=2e-5, atol=1e-5)


def test_chunks_take_its_place_elsewhere():
    """Where there is no TPU the same arguments give the same values."""
    batch = _inputs(*SHAPES["ragged"])
    settings = {"temperature": 0.7, "soft_cap": 2.0}
    fused = fused_logprobs(**batch, **settings, interpret=True)
    chunked = chunked_logprobs(**batch, **settings, chunking=Chunking(rows=64))
    for one, other in zip(fused, chunked, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-5)
