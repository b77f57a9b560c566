"""A TPU kernel: log-probabilities and entropies without any logits in memory.

Head and hidden states meet in the chip's own memory, a tile of logits at a time; of
each tile only sums of a row are kept, rescaled when a greater logit comes (online
softmax, arXiv:1805.02867). docs/losses.md has what the TPU's compiler expects of it.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int

__all__ = ["TILE", "fused_logprobs"]

TILE = (1024, 512)
"""Rows and tokens of the vocabulary that meet at once, or half and a quarter of both
where D is large. The head is read once for so many rows: enough for its product to take
longer than the reading on every chip so far."""
_LANES = 128
"""Numbers in a row of a vector register."""
_TILE_BYTES = 8 << 20
"""Of a tile of hidden states or of the head; smaller tiles if they were larger."""
_ON_CHIP_BYTES = 48 << 20
_NEVER = -1e30
"""A logit of no probability; −inf would make differences NaN."""


def fused_logprobs(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    tokens: Int[Array, "B T"],
    *,
    mask: Bool[Array, "B T"],
    temperature: float = 1.0,
    soft_cap: float | None = None,
    mesh: Mesh | None = None,
    batch_axes: tuple[str, ...] = (),
    vocabulary_axes: tuple[str, ...] = (),
    seen_rows: int | None = None,
    interpret: bool = False,
) -> tuple[Float32[Array, "B T"], Float32[Array, "B T"]]:
    """Log-probability of each token, and entropy, in nats; 0 where masked.

    No derivatives: `chunked_logprobs` has them, and takes this on TPUs.

    Args:
      hidden: last hidden states; their type is that of the product.
      head: output embeddings.
      tokens: ids below V.
      mask: True for rows that count; others may hold anything.
      temperature: divides the logits; positive.
      soft_cap: c of c tanh(logits / c), before the temperature.
      mesh: devices, if there are several.
      batch_axes: of the mesh, over which the batch is cut evenly.
      vocabulary_axes: of the mesh, over which the head is cut evenly by tokens. Along
        axes that cut the batch as well devices see one another's rows.
      seen_rows: of each device that the others see at a time; all by default.
      interpret: run as plain JAX, on any platform, slowly.
    """
    statistics = partial(
        _statistics, temperature=temperature, soft_cap=soft_cap, interpret=interpret
    )

    shared = tuple(name for name in batch_axes if name in vocabulary_axes)

    def of_rows(rows: tuple[Any, Any], head: Any) -> tuple[Any, Any]:
        count = rows[1].shape[0]
        if shared:
            rows = jax.lax.all_gather(rows, shared, tiled=True)
        hidden, wanted = rows
        if vocabulary_axes:
            wanted = wanted - jax.lax.axis_index(vocabulary_axes) * head.shape[0]
        logsumexp, mean, chosen = statistics(hidden, head, wanted)
        if vocabulary_axes:
            parts = jax.lax.all_gather(logsumexp, vocabulary_axes)
            whole = jax.nn.logsumexp(parts, axis=0)
            mean = jax.lax.psum(mean * jnp.exp(logsumexp - whole), vocabulary_axes)
            chosen, logsumexp = jax.lax.psum(chosen, vocabulary_axes), whole
        found = chosen - logsumexp, logsumexp - mean
        if not shared:
            return found
        start = jax.lax.axis_index(shared) * count
        return jax.tree.map(
            lambda each: jax.lax.dynamic_slice_in_dim(each, start, count), found
        )

    def on_device(hidden: Any, head: Any, tokens: Any, mask: Any) -> tuple[Any, Any]:
        flat = jnp.where(mask[..., None], hidden, 0).reshape(-1, hidden.shape[-1])
        count = flat.shape[0]
        some = count if seen_rows is None or not shared else seen_rows
        spare = -count % some
        rows = (
            jnp.pad(flat, ((0, spare), (0, 0))).reshape(-1, some, flat.shape[-1]),
            jnp.pad(tokens.reshape(-1), (0, spare)).reshape(-1, some),
        )
        found = jax.lax.map(lambda piece: of_rows(piece, head), rows)
        logprobs, entropies = (
            each.reshape(-1)[:count].reshape(mask.shape) for each in found
        )
        return jnp.where(mask, logprobs, 0.0), jnp.where(mask, entropies, 0.0)

    operands = (hidden, head.astype(hidden.dtype), tokens, mask)
    if not (batch_axes or vocabulary_axes):
        return on_device(*operands)
    batch, table = PartitionSpec(batch_axes), PartitionSpec(vocabulary_axes)
    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(batch, table, batch, batch),
        out_specs=(batch, batch),
        check_vma=False,
    )(*operands)


def _statistics(
    hidden: Float[Array, "N D"],
    head: Float[Array, "V D"],
    tokens: Int[Array, " N"],
    *,
    temperature: float,
    soft_cap: float | None,
    interpret: bool,
) -> tuple[Float32[Array, " N"], Float32[Array, " N"], Float32[Array, " N"]]:
    """Of each row's logits s: log Σ exp s, Σ softmax(s) s, and s of the row's token.

    Of a part of the vocabulary they are the part's, and a token outside it has 0.
    """
    count, width = hidden.shape
    vocabulary = head.shape[0]
    tall, wide = TILE
    while wide > _LANES and tall * width * hidden.dtype.itemsize > _TILE_BYTES:
        tall, wide = tall // 2, wide // 2
    tall = min(tall, -(-count // _LANES) * _LANES)
    rows = -(-count // tall) * tall
    hidden = jnp.pad(hidden, ((0, rows - count), (0, 0)))
    wanted = jnp.pad(tokens.astype(jnp.int32), (0, rows - count))
    of_rows = pl.BlockSpec((tall, _LANES), lambda row, column: (row, 0))
    statistic = jax.ShapeDtypeStruct((rows, _LANES), jnp.float32)
    outputs = pl.pallas_call(
        partial(
            _kernel,
            vocabulary=vocabulary,
            temperature=temperature,
            soft_cap=soft_cap,
        ),
        grid=(rows // tall, pl.cdiv(vocabulary, wide)),
        in_specs=[
            pl.BlockSpec((tall, width), lambda row, column: (row, 0)),
            pl.BlockSpec((wide, width), lambda row, column: (column, 0)),
            of_rows,
        ],
        out_specs=[of_rows] * 3,
        out_shape=[statistic] * 3,
        scratch_shapes=[pltpu.VMEM((tall, _LANES), jnp.float32)] * 4,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"),
            vmem_limit_bytes=_ON_CHIP_BYTES,
        ),
        cost_estimate=pl.CostEstimate(
            flops=2 * rows * vocabulary * width,
            transcendentals=rows * vocabulary,
            bytes_accessed=rows // tall * head.size * head.dtype.itemsize,
        ),
        interpret=interpret,
    )(hidden, head, jnp.broadcast_to(wanted[:, None], (rows, _LANES)))
    logsumexp, mean, chosen = (output[:count, 0] for output in outputs)
    return logsumexp, mean, chosen


def _kernel(
    hidden: Any,
    head: Any,
    tokens: Any,
    logsumexp: Any,
    mean: Any,
    chosen: Any,
    top: Any,
    total: Any,
    weighted: Any,
    found: Any,
    *,
    vocabulary: int,
    temperature: float,
    soft_cap: float | None,
) -> None:
    column = pl.program_id(1)

    @pl.when(column == 0)
    def _() -> None:
        top[...] = jnp.full_like(top, _NEVER)
        for sums in (total, weighted, found):
            sums[...] = jnp.zeros_like(sums)

    logits = jax.lax.dot_general(
        hidden[...],
        head[...],
        (((1,), (1,)), ((), ())),
        preferred_element_type=jnp.float32,
    )
    if soft_cap is not None:
        logits = soft_cap * jnp.tanh(logits / soft_cap)
    ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    ids += column * logits.shape[1]
    logits = jnp.where(ids < vocabulary, logits / temperature, _NEVER)
    higher = jnp.maximum(top[...], logits.max(axis=1, keepdims=True))
    rescale = jnp.exp(top[...] - higher)
    weights = jnp.exp(logits - higher[:, :1])
    total[...] = total[...] * rescale + weights.sum(axis=1, keepdims=True)
    weighted[...] = weighted[...] * rescale + (weights * logits).sum(
        axis=1, keepdims=True
    )
    is_chosen = (ids == tokens[:, :1]) & (ids < vocabulary)
    found[...] += jnp.where(is_chosen, logits, 0.0).sum(axis=1, keepdims=True)
    top[...] = higher

    @pl.when(column == pl.num_programs(1) - 1)
    def _() -> None:
        logsumexp[...] = top[...] + jnp.log(total[...])
        mean[...] = weighted[...] / total[...]
        chosen[...] = found[...]
