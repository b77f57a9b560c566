"""Attention over keys and values in pages: a reference, and JAX's kernel for TPU."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import (
    ragged_paged_attention,
)
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int32

from fdjax.model.config import ModelConfig
from fdjax.model.pages import Pages
from fdjax.sharding import batch_parts

__all__ = ["PagedAttention", "kernel_attention", "paged_attention", "pages_sharding"]

_MASKED = -1e30
"""Score of a pair that may not attend; finite, so that no row becomes NaN."""

_TILE = 16
"""Pages that the reference has before it at once: they stay in a processor's cache."""

_LANES = 128
"""Width of a TPU vector register; the kernel's heads are filled up to it."""

KERNEL_TOKENS = 512
"""Keys that the kernel has before it at once."""

_KERNEL_QUERIES = 32
"""Queries that the kernel has before it at once."""

_ROWS = ("data", "fsdp")
_PAGES = PartitionSpec(_ROWS, None, None, "tensor")
"""Pages belong to a part of the batch, their heads to the heads' devices."""


def pages_sharding(mesh: Mesh) -> NamedSharding:
    """Layout of `Pages`."""
    return NamedSharding(mesh, _PAGES)


@dataclass(frozen=True)
class PagedAttention:
    """Writes a layer's new keys and values to their pages, and attends to all of them.

    Over a mesh each device does so for its own rows, pages and heads.
    """

    kernel: bool
    """Whether JAX's ragged paged attention for TPU reads the pages."""
    mesh: Mesh | None = None

    @classmethod
    def choose(cls, config: ModelConfig, mesh: Mesh | None) -> "PagedAttention":
        """The kernel on TPU, unless `config.attention` is not that of TPUs."""
        device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
        kernel = device.platform == "tpu" and config.attention in ("auto", "splash")
        return cls(kernel, mesh)

    def init(
        self, count: int, page: int, *, kv_heads: int, size: int, dtype: Any
    ) -> Pages:
        """Zeros: `count` pages of `page` tokens for each part of the mesh.

        For the kernel, heads are filled up to a TPU's registers.
        """
        parts, layout = 1, None
        if self.mesh is not None:
            parts, layout = batch_parts(self.mesh), pages_sharding(self.mesh)
        shape = (2, kv_heads, size * page)
        if self.kernel:
            shape = (page, 2 * kv_heads, size + -size % _LANES)
        return _zeros((parts, count, *shape), jnp.dtype(dtype), layout)

    def __call__(
        self,
        query: Float[Array, "B Q N H"],
        key: Float[Array, "B Q M H"],
        value: Float[Array, "B Q M H"],
        pages: Pages,
        tables: Int32[Array, "B P"],
        starts: Int32[Array, " B"],
    ) -> tuple[Float[Array, "B Q N H"], Pages]:
        """Heads of the new tokens, and the pages with them; see `Model.extend`."""
        step = partial(_write_and_attend, kernel=self.kernel)
        if self.mesh is not None:
            heads, rows = PartitionSpec(_ROWS, None, "tensor"), PartitionSpec(_ROWS)
            step = jax.shard_map(
                step,
                mesh=self.mesh,
                in_specs=(heads, heads, heads, _PAGES, rows, rows),
                out_specs=(heads, _PAGES),
                check_vma=False,
            )
        return step(query, key, value, pages, tables, starts)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _zeros(
    shape: tuple[int, ...], dtype: jnp.dtype[Any], layout: NamedSharding | None
) -> Pages:
    """Made where they stay, and compiled once: a sampler allocates them often."""
    zeros = jnp.zeros(shape, dtype)
    if layout is None:
        return zeros
    return jax.lax.with_sharding_constraint(zeros, layout)


def _write_and_attend(
    query: Float[Array, "B Q N H"],
    key: Float[Array, "B Q M H"],
    value: Float[Array, "B Q M H"],
    pages: Pages,
    tables: Int32[Array, "B P"],
    starts: Int32[Array, " B"],
    *,
    kernel: bool,
) -> tuple[Float[Array, "B Q N H"], Pages]:
    """The same on one device."""
    size = key.shape[3]
    if kernel:
        fill = [(0, 0)] * 3 + [(0, pages.shape[4] - size)]
        query, key, value = (jnp.pad(array, fill) for array in (query, key, value))
        page, write, attend = pages.shape[2], _write_entries, kernel_attention
    else:
        page, write, attend = pages.shape[4] // size, _write_heads, paged_attention
    column, offset = starts // page, starts % page
    where = jnp.take_along_axis(tables, column[:, None], axis=1)[:, 0]
    held = write(pages[0], key, value, where, offset)
    heads = attend(query, held, tables=tables, starts=starts, scale=size**-0.5)
    return heads[..., :size], held[None]


def _write_entries(
    pages: Float[Array, "Z page E H"],
    key: Float[Array, "B Q M H"],
    value: Float[Array, "B Q M H"],
    where: Int32[Array, " B"],
    offset: Int32[Array, " B"],
) -> Float[Array, "Z page E H"]:
    """Pages of the kernel with a token, or a page, of each row."""
    both = jnp.stack([key, value], axis=3).reshape(*key.shape[:2], *pages.shape[2:])
    if key.shape[1] == 1:
        return pages.at[where, offset].set(both[:, 0])
    return _write_pages(pages, both, where)


def _write_heads(
    pages: Float[Array, "Z 2 M X"],
    key: Float[Array, "B Q M H"],
    value: Float[Array, "B Q M H"],
    where: Int32[Array, " B"],
    offset: Int32[Array, " B"],
) -> Float[Array, "Z 2 M X"]:
    """Pages of the reference with a token, or a page, of each row."""
    batch, length, heads, size = key.shape
    if length == 1:
        page = pages.shape[3] // size
        row, offset = where[:, None, None], offset[:, None, None]
        head = jnp.arange(heads, dtype=jnp.int32)[None, :, None]
        index = jnp.arange(size, dtype=jnp.int32)[None, None]
        pages = pages.at[row, 0, head, index * page + offset].set(key[:, 0])
        return pages.at[row, 1, head, offset * size + index].set(value[:, 0])
    both = jnp.stack(
        [
            jnp.moveaxis(key, 1, 3).reshape(batch, heads, -1),
            jnp.moveaxis(value, 1, 2).reshape(batch, heads, -1),
        ],
        axis=1,
    )
    return _write_pages(pages, both, where)


def _write_pages(
    pages: Float[Array, "Z ..."],
    new: Float[Array, "B ..."],
    where: Int32[Array, " B"],
) -> Float[Array, "Z ..."]:
    """One after another: as a scatter, a TPU would lay all pages out anew.

    How many must not be known: a loop of one turn is taken apart, and on CPUs all pages
    are copied then, three times.
    """
    count = jax.lax.optimization_barrier(jnp.int32(len(new)))
    return jax.lax.fori_loop(
        0,
        count,
        lambda row, held: jax.lax.dynamic_update_index_in_dim(
            held, new[row], where[row], axis=0
        ),
        pages,
    )


def kernel_attention(
    query: Float[Array, "R Q N H"],
    pages: Float[Array, "Z page E H"],
    *,
    tables: Int32[Array, "R P"],
    starts: Int32[Array, " R"],
    scale: float,
) -> Float[Array, "R Q N H"]:
    """`paged_attention` by JAX's ragged paged attention for TPU.

    Each row is a sequence of its own to the kernel, with Q queries at its end.
    """
    batch, length, heads, size = query.shape
    out = ragged_paged_attention(
        query.reshape(batch * length, heads, size),
        pages,
        kv_lens=starts + length,
        page_indices=tables,
        cu_q_lens=jnp.arange(batch + 1, dtype=jnp.int32) * length,
        num_seqs=jnp.full((1,), batch, jnp.int32),
        sm_scale=scale,
        num_kv_pages_per_block=min(
            max(KERNEL_TOKENS // pages.shape[1], 1), tables.shape[1]
        ),
        num_queries_per_block=min(_KERNEL_QUERIES, batch * length),
    )
    return out.reshape(query.shape)


def paged_attention(
    query: Float[Array, "R Q N H"],
    pages: Float[Array, "Z 2 M X"],
    *,
    tables: Int32[Array, "R P"],
    starts: Int32[Array, " R"],
    scale: float,
) -> Float[Array, "R Q N H"]:
    """softmax(scale · q kᵀ) v of consecutive queries over all tokens up to each.

    A loop over the pages that rows have filled, a tile of them a turn, with an online
    softmax (arXiv:1805.02867): the cost follows those pages, not the width of the
    table, and no row's keys are gathered whole. Softmax in float32.

    Args:
      query: N heads at positions starts[r] + q; head n reads key/value head n // (N/M).
      pages: M heads of keys, each [H, page], and of values, [page, H].
      tables: page of each row that holds its tokens from column · page on; anything
        beyond the last query's column.
      starts: position of each row's first query; its keys lie in the pages already.
      scale: of the scores, 1/√H.
    """
    batch, length, heads, size = query.shape
    kv_heads, page = pages.shape[2], pages.shape[3] // size
    shared = heads // kv_heads
    wide = min(_TILE, tables.size)
    filled = (starts + length + page - 1) // page
    row_of = jnp.repeat(
        jnp.arange(batch, dtype=jnp.int32), filled, total_repeat_length=tables.size
    )
    before = jnp.cumsum(filled) - filled
    scaled = (query * scale).reshape(batch, length, kv_heads, shared, size)
    scaled = jnp.moveaxis(scaled, 1, 3).reshape(batch, kv_heads, -1, size)
    positions = starts[:, None] + jnp.arange(length, dtype=jnp.int32)[None]
    by_row = partial(jax.ops.segment_sum, num_segments=batch, indices_are_sorted=True)

    def tile(turn: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, ...]:
        top, total, out = carry
        item = turn * wide + jnp.arange(wide, dtype=jnp.int32)
        row = row_of[jnp.minimum(item, tables.size - 1)]
        column = item - before[row]
        held = tables[row, jnp.minimum(column, tables.shape[1] - 1)]
        token = column[:, None] * page + jnp.arange(page, dtype=jnp.int32)[None]
        seen = token[:, None] <= positions[row][:, :, None]
        seen &= (item < filled.sum())[:, None, None]
        scores = jnp.einsum(
            "wmqh,wmhs->wmqs",
            scaled[row],
            pages[held, 0].reshape(wide, kv_heads, size, page),
            preferred_element_type=jnp.float32,
        )
        scores = scores.reshape(wide, kv_heads, shared, length, page)
        scores = jnp.where(seen[:, None, None], scores, _MASKED)
        mine = row[None] == jnp.arange(batch, dtype=jnp.int32)[:, None]
        best = scores.max(axis=-1)
        spread = jnp.where(mine[:, :, None, None, None], best[None], _MASKED)
        new = jnp.maximum(top, spread.max(axis=1))
        weights = jnp.exp(scores - new[row][..., None])
        # What another sequence left behind a row's end may be no number at all.
        written = seen.any(axis=1)[:, None, :, None]
        value = pages[held, 1].reshape(wide, kv_heads, page, size)
        value = jnp.where(written, value, jnp.zeros((), value.dtype))
        mixed = jnp.einsum(
            "wmqs,wmsh->wmqh",
            weights.astype(value.dtype).reshape(wide, kv_heads, -1, page),
            value,
            preferred_element_type=jnp.float32,
        )
        mixed = mixed.reshape(wide, kv_heads, shared, length, size)
        # By rows, not as a product with `mine`: 0 · NaN would reach the other rows.
        fade = jnp.exp(top - new)
        total = total * fade + by_row(weights.sum(axis=-1), row)
        out = out * fade[..., None] + by_row(mixed, row)
        return new, total, out

    shape = (batch, kv_heads, shared, length)
    _, total, out = jax.lax.fori_loop(
        0,
        (filled.sum() + wide - 1) // wide,
        tile,
        (
            jnp.full(shape, _MASKED, jnp.float32),
            jnp.zeros(shape, jnp.float32),
            jnp.zeros((*shape, size), jnp.float32),
        ),
    )
    out = jnp.moveaxis(out / total[..., None], 3, 1)
    return out.reshape(query.shape).astype(query.dtype)
