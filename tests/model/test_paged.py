import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import (
    ref_ragged_paged_attention,
)

from fdjax.model import Model, ModelConfig, paged
from fdjax.model.paged import kernel_attention, paged_attention
from fdjax.sharding import init_sharded, make_mesh

_PAGE, _COLUMNS, _SIZE = 4, 5, 8


@functools.cache
def _case(unroll=False):
    """A model and its parameters."""
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
    return model, jax.jit(model.init)(jax.random.key(0))


def _pool(rng, rows, length, *, heads=4, kv_heads=2, size=_SIZE, columns=_COLUMNS):
    """Queries, pages in disorder, and where each row's are; later pages hold NaN.

    In the kernel's layout.
    """
    count = rows * columns + 1
    pages = rng.standard_normal((count, _PAGE, 2 * kv_heads, size)).astype(np.float32)
    tables = 1 + rng.permutation(rows * columns).reshape(rows, columns)
    starts = rng.integers(0, _PAGE * columns - length, rows)
    if length == _PAGE:
        starts -= starts % _PAGE
    for table, start in zip(tables, starts, strict=True):
        flat = np.arange(columns * _PAGE) >= start + length
        pages[table] = np.where(
            flat.reshape(columns, _PAGE)[..., None, None], np.nan, pages[table]
        )
    query = rng.standard_normal((rows, length, heads, size)).astype(np.float32)
    return query, pages, tables.astype(np.int32), starts.astype(np.int32)


def _of_reference(pages):
    """The kernel's pages in the reference's layout."""
    count = len(pages)
    keys = np.moveaxis(pages[:, :, ::2], 1, 3).reshape(count, -1, _PAGE * _SIZE)
    values = np.moveaxis(pages[:, :, 1::2], 1, 2).reshape(count, -1, _PAGE * _SIZE)
    return np.stack([keys, values], axis=1)


def _by_hand(query, pages, tables, starts, scale):
    """float64, one row and one head at a time."""
    out = np.empty(query.shape)
    shared = query.shape[2] // (pages.shape[2] // 2)
    for row, (table, start) in enumerate(zip(tables, starts, strict=True)):
        held = pages[table].reshape(-1, *pages.shape[2:]).astype(np.float64)
        for step in range(query.shape[1]):
            until = start + step + 1
            for head in range(query.shape[2]):
                key = held[:until, 2 * (head // shared)]
                value = held[:until, 2 * (head // shared) + 1]
                scores = scale * key @ query[row, step, head].astype(np.float64)
                weights = np.exp(scores - scores.max())
                out[row, step, head] = weights @ value / weights.sum()
    return out


@pytest.mark.parametrize("length", [1, _PAGE])
@pytest.mark.parametrize("rows", [1, 5])
def test_the_reference_equals_attention_by_hand(rows, length):
    rng = np.random.default_rng(rows)
    query, pages, tables, starts = _pool(rng, rows, length)
    got = jax.jit(functools.partial(paged_attention, scale=0.4))(
        query, _of_reference(pages), tables=tables, starts=starts
    )
    want = _by_hand(query, pages, tables, starts, 0.4)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


@pytest.mark.parametrize("length", [1, _PAGE])
def test_a_row_that_is_no_number_stays_alone(length):
    query, pages, tables, starts = _pool(np.random.default_rng(5), 5, length)
    attend = jax.jit(functools.partial(paged_attention, scale=0.4))
    pages = _of_reference(pages)
    want = attend(query, pages, tables=tables, starts=starts)
    query[2] = np.nan
    got = attend(query, pages, tables=tables, starts=starts)
    others = np.arange(5) != 2
    np.testing.assert_array_equal(got[others], want[others])
    assert np.isnan(got[2]).all()


@pytest.mark.parametrize("length", [1, _PAGE])
def test_the_kernel_is_asked_for_the_same(length, monkeypatch):
    """By JAX's own reference for it: its interpreter lacks what the kernel does."""

    def reference(*args, num_kv_pages_per_block, num_queries_per_block, **kwargs):
        return ref_ragged_paged_attention(*args, **kwargs)

    monkeypatch.setattr(paged, "ragged_paged_attention", reference)
    rng = np.random.default_rng(7)
    query, pages, tables, starts = map(jnp.asarray, _pool(rng, 3, length))
    where = {"tables": tables, "starts": starts, "scale": 0.3}
    want = paged_attention(query, jnp.asarray(_of_reference(pages)), **where)
    got = kernel_attention(query, pages, **where)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def _extend(model):
    return jax.jit(model.extend, donate_argnums=1)


def _sequence(model, params, tokens):
    """Logits of the full forward."""
    return jax.jit(model.apply)(params, tokens, valid=np.ones(tokens.shape, bool))


@pytest.mark.parametrize("kind", ["stacked", "unrolled", "apart"])
def test_pages_then_tokens_equal_the_full_forward(kind):
    """A prompt of two pages and a half in one call, its pages as rows; then tokens."""
    model, params = _case(kind == "unrolled")
    tokens = np.random.default_rng(2).integers(0, 40, (1, 16), np.int32)
    want = _sequence(model, params, tokens)[0]
    if kind == "apart":
        layers = [
            jax.tree.map(operator.itemgetter(layer), params["layers"])
            for layer in range(model.config.num_layers)
        ]
        params = {**params, "layers": layers}
    pages = model.init_pages(8, _PAGE)
    table = np.array([5, 2, 7, 1], np.int32)
    prompt = np.zeros((4, _PAGE), np.int32)
    prompt.flat[:10] = tokens[0, :10]
    # The fourth row is nobody's.
    tables = np.stack([table, table, table, np.zeros_like(table)])
    hidden, pages = _extend(model)(
        params,
        pages,
        prompt,
        tables=tables,
        starts=np.array([0, _PAGE, 2 * _PAGE, 0], np.int32),
    )
    got = model.head(params, hidden).reshape(-1, 40)[:10]
    np.testing.assert_allclose(got, want[:10], rtol=1e-5, atol=1e-5)
    for position in range(10, 16):
        hidden, pages = _extend(model)(
            params,
            pages,
            tokens[:, position, None],
            tables=table[None],
            starts=np.array([position], np.int32),
        )
        np.testing.assert_allclose(
            model.head(params, hidden)[0, 0], want[position], rtol=1e-5, atol=1e-5
        )


def test_eight_devices_have_pages_of_their_own():
    model, params = _case()
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    spread = Model(model.config, mesh)
    sharded = init_sharded(
        mesh, lambda _: params, model.logical_axes(), jax.random.key(0)
    )
    tokens = np.random.default_rng(4).integers(0, 40, (8, 6), np.int32)
    # Two rows in each of four parts: the parts' tables are the same.
    tables = np.tile(1 + np.arange(4, dtype=np.int32).reshape(2, 2), (4, 1))
    pages = spread.init_pages(5, _PAGE)
    assert pages.shape == (4, 15, 2, 2, _PAGE * 8)
    want = _sequence(model, params, tokens)
    for position in range(6):
        hidden, pages = _extend(spread)(
            sharded,
            pages,
            tokens[:, position, None],
            tables=tables,
            starts=np.full((8,), position, np.int32),
        )
        got = model.head(params, jax.device_put(hidden[:, 0], jax.devices()[0]))
        np.testing.assert_allclose(got, want[:, position], rtol=1e-5, atol=1e-5)
    assert {shard.data.shape for shard in pages.addressable_shards} == {
        (1, 15, 2, 1, _PAGE * 8)
    }


def test_the_pool_is_written_in_place():
    model, params = _case()
    pages = model.init_pages(5, _PAGE)
    arguments = (params, pages, np.zeros((2, 1), np.int32))
    compiled = (
        _extend(model)
        .lower(
            *arguments,
            tables=np.zeros((2, 2), np.int32),
            starts=np.zeros((2,), np.int32),
        )
        .compile()
    )
    assert compiled.memory_analysis().alias_size_in_bytes >= pages.nbytes
    assert jnp.shape(pages) == (1, 15, 2, 2, _PAGE * 8)
