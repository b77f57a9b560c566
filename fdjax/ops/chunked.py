"""Functions of next-token logits, from hidden states and head, a chunk at a time.

The logits of a batch, [B, T, V], are its largest array by far. Here they exist for a
chunk of rows only. A chunk's gradient is taken while its logits are there: they are
computed once, and nothing of size V outlives the chunk but the head's own gradient.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int

from fdjax.errors import ConfigError
from fdjax.ops.logprobs import entropy, token_logprobs

__all__ = ["Chunking", "chunked_logprobs", "chunked_sum", "head_logits"]

_CHUNK_ELEMENTS = 1 << 25
"""Logits that a device holds at once, unless told otherwise: 128 MiB of float32."""

RowFunction = Callable[[Array, Any, Any], tuple[Array, Any]]


class Chunking(NamedTuple):
    """How rows are cut into chunks, and over which devices they lie."""

    rows: int | None = None
    """Rows of a chunk on a device; chosen from the vocabulary's size by default."""
    mesh: Mesh | None = None
    """Devices; None for one, or inside a `shard_map` of your own."""
    batch_axes: tuple[str, ...] = ("data", "fsdp")
    """Axes of the mesh over which the batch is cut; the vocabulary may be over others,
    and is never gathered."""


def head_logits(
    hidden: Float[Array, "*batch D"],
    head: Float[Array, "V D"],
    *,
    soft_cap: float | None = None,
) -> Float32[Array, "*batch V"]:
    """Logits in float32, accumulated so whatever the type of the hidden states.

    Args:
      hidden: last hidden states; their type is that of the products.
      head: output embeddings.
      soft_cap: c of c tanh(logits / c) as Gemma has it, positive.
    """
    logits = jnp.einsum(
        "...d,vd->...v",
        hidden,
        head.astype(hidden.dtype),
        preferred_element_type=jnp.float32,
    )
    return logits if soft_cap is None else soft_cap * jnp.tanh(logits / soft_cap)


def chunked_sum(
    function: RowFunction,
    hidden: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    *,
    mask: Bool[Array, "B T"],
    rows: Any,
    shared: Any = (),
    soft_cap: float | None = None,
    chunking: Chunking = Chunking(),
) -> tuple[Float32[Array, ""], Any]:
    """Sum over rows of a function of their logits, with exact gradients.

    Args:
      function: `(logits [R, V], rows, shared) -> (sum, sums)`: a scalar, which carries
        the gradient, and a pytree of scalars, which do not; of R rows of the batch,
        each row by itself. Of `rows` it gets R entries, with `mask` as "mask" beside
        them: masked rows may hold anything, and must add nothing.
      hidden: last hidden states; zeros take the place of masked rows.
      head: output embeddings, for instance of float32 where hidden states are bfloat16.
      mask: True for rows that count.
      rows: dict of arrays [B, T, ...].
      shared: pytree of arrays that all rows see, for instance the teacher's head.
      soft_cap: see `head_logits`.
      chunking: how.

    Returns:
      The sums over all rows. Only the first can be differentiated, by `hidden` and
      `head`: products are in the type of `hidden`, sums over rows in float32.
    """
    rows = {**rows, "mask": mask}
    return _sum((function, soft_cap, chunking), hidden, head, rows, shared)


def chunked_logprobs(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    tokens: Int[Array, "B T"],
    *,
    mask: Bool[Array, "B T"],
    temperature: float = 1.0,
    soft_cap: float | None = None,
    chunking: Chunking = Chunking(),
) -> tuple[Float32[Array, "B T"], Float32[Array, "B T"]]:
    """Log-probability of each token, and entropy, in nats; 0 where masked.

    Any function of them can be differentiated by `hidden` and `head`. The gradient
    computes the logits anew; losses that are sums over tokens need not
    (`losses.token_loss_from_hidden`).

    Args:
      hidden: at the position that predicts the token.
      head: output embeddings.
      tokens: ids below V.
      mask: True for rows that count.
      temperature: divides the logits; positive.
      soft_cap: see `head_logits`.
      chunking: how.
    """
    settings = (temperature, soft_cap, chunking)
    return _logprobs(settings, hidden, head, {"tokens": tokens, "mask": mask})


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum(settings: Any, hidden: Any, head: Any, rows: Any, shared: Any) -> Any:
    function, soft_cap, chunking = settings

    def chunk(hidden: Any, head: Any, rows: Any, shared: Any) -> Any:
        logits = head_logits(hidden, head, soft_cap=soft_cap)
        return function(logits, rows, shared), ()

    sums, _ = _over_chunks(chunk, chunking, hidden, head, rows, shared)
    return sums


def _sum_forward(settings: Any, hidden: Any, head: Any, rows: Any, shared: Any) -> Any:
    function, soft_cap, chunking = settings

    def chunk(hidden: Any, head: Any, rows: Any, shared: Any) -> Any:
        def capped(logits: Any) -> Any:
            if soft_cap is not None:
                logits = soft_cap * jnp.tanh(logits / soft_cap)
            return function(logits, rows, shared)

        sums, slope = jax.value_and_grad(capped, has_aux=True)(
            head_logits(hidden, head)
        )
        slope = slope.astype(hidden.dtype)
        by_hidden = jnp.einsum("rv,vd->rd", slope, head.astype(hidden.dtype))
        by_head = jnp.einsum(
            "rv,rd->vd", slope, hidden, preferred_element_type=jnp.float32
        )
        return (sums, by_head), by_hidden

    (sums, by_head), by_hidden = _over_chunks(
        chunk, chunking, hidden, head, rows, shared
    )
    return sums, (by_hidden, by_head.astype(head.dtype))


def _sum_backward(settings: Any, gradients: Any, cotangents: Any) -> Any:
    scale, _ = cotangents
    by_hidden, by_head = ((scale * part).astype(part.dtype) for part in gradients)
    return by_hidden, by_head, None, None


_sum.defvjp(_sum_forward, _sum_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _logprobs(settings: Any, hidden: Any, head: Any, rows: Any) -> Any:
    temperature, soft_cap, chunking = settings

    def chunk(hidden: Any, head: Any, rows: Any, shared: Any) -> Any:
        logits = head_logits(hidden, head, soft_cap=soft_cap)
        return (), _row_logprobs(logits, rows, temperature)

    return _over_chunks(chunk, chunking, hidden, head, rows, ())[1]


def _logprobs_forward(settings: Any, hidden: Any, head: Any, rows: Any) -> Any:
    return _logprobs(settings, hidden, head, rows), (hidden, head, rows)


def _logprobs_backward(settings: Any, saved: Any, cotangents: Any) -> Any:
    temperature, soft_cap, chunking = settings
    hidden, head, rows = saved

    def weighted(logits: Any, rows: Any, shared: Any) -> Any:
        values = _row_logprobs(logits, rows, temperature)
        return sum(
            jnp.sum(value * weight)
            for value, weight in zip(values, rows["weights"], strict=True)
        ), ()

    _, gradients = _sum_forward(
        (weighted, soft_cap, chunking),
        hidden,
        head,
        {**rows, "weights": cotangents},
        (),
    )
    return *gradients, None


_logprobs.defvjp(_logprobs_forward, _logprobs_backward)


def _row_logprobs(logits: Any, rows: Any, temperature: float) -> tuple[Any, Any]:
    mask = rows["mask"]
    logprobs = token_logprobs(logits, rows["tokens"], temperature=temperature)
    spread = entropy(logits, temperature=temperature)
    return jnp.where(mask, logprobs, 0.0), jnp.where(mask, spread, 0.0)


def _over_chunks(
    chunk: Callable[..., tuple[Any, Any]],
    chunking: Chunking,
    hidden: Any,
    head: Any,
    rows: Any,
    shared: Any,
) -> tuple[Any, Any]:
    """Runs `chunk` on each device's chunks; adds its sums, puts its outputs together.

    Returns:
      A pytree of sums over all rows, and a pytree of arrays [B, T, ...].
    """
    mesh = chunking.mesh
    head = head.astype(hidden.dtype)
    if mesh is None:
        size = _chunk_rows(chunking.rows, math.prod(hidden.shape[:2]), head.shape[0])
        return _scan(chunk, size, hidden, head, rows, shared)
    axes = tuple(name for name in chunking.batch_axes if name in mesh.shape)
    parts = math.prod(mesh.shape[name] for name in axes)
    if hidden.shape[0] % parts:
        raise ConfigError(
            f"expected a batch divisible by the {parts} devices of {axes}, got "
            f"{hidden.shape[0]} rows: change the batch or the mesh"
        )
    size = _chunk_rows(
        chunking.rows,
        math.prod(hidden.shape[:2]) // parts,
        -(-head.shape[0] * parts // mesh.size),
    )

    # Manual over the batch, so that gradients of the head are added up over devices
    # once and not for every chunk; the vocabulary's axes are left to the compiler.
    def on_device(*operands: Any) -> tuple[Any, Any]:
        sums, outputs = _scan(chunk, size, *operands)
        return jax.lax.psum(sums, axes), outputs

    batch, whole = PartitionSpec(axes), PartitionSpec()
    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(batch, whole, batch, whole),
        out_specs=(whole, batch),
        axis_names=set(axes),
        check_vma=False,
    )(hidden, head, rows, shared)


def _scan(
    chunk: Callable[..., tuple[Any, Any]],
    size: int,
    hidden: Any,
    head: Any,
    rows: Any,
    shared: Any,
) -> tuple[Any, Any]:
    shape = hidden.shape[:2]
    count = math.prod(shape)
    chunks = -(-count // size)

    def cut(array: Any) -> Any:
        flat = array.reshape(count, *array.shape[2:])
        padding = [(0, chunks * size - count)] + [(0, 0)] * (flat.ndim - 1)
        return jnp.pad(flat, padding).reshape(chunks, size, *flat.shape[1:])

    def join(array: Any) -> Any:
        flat = array.reshape(chunks * size, *array.shape[2:])
        return flat[:count].reshape(*shape, *flat.shape[1:])

    def run(hidden: Any, rows: Any) -> tuple[Any, Any]:
        hidden = jnp.where(rows["mask"][:, None], hidden, 0)
        return chunk(hidden, head, rows, shared)

    def body(total: Any, piece: Any) -> tuple[Any, Any]:
        sums, outputs = run(*piece)
        return jax.tree.map(jnp.add, total, sums), outputs

    pieces = jax.tree.map(cut, (hidden, rows))
    first, _ = jax.eval_shape(run, *jax.tree.map(lambda x: x[0], pieces))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
    sums, outputs = jax.lax.scan(body, zeros, pieces)
    return sums, jax.tree.map(join, outputs)


def _chunk_rows(asked: int | None, rows: int, vocabulary: int) -> int:
    """Rows of a chunk: as many as asked or as the budget allows, evenly spread.

    Raises:
      ConfigError: the number asked for is not positive.
    """
    if asked is not None and asked < 1:
        raise ConfigError(f"expected a positive number of rows a chunk, got {asked}")
    limit = max(8, _CHUNK_ELEMENTS // vocabulary) if asked is None else asked
    chunks = max(1, -(-rows // limit))
    return max(1, -(-rows // chunks))
