"""Functions of next-token logits, from hidden states and head, a chunk at a time.

The logits of a batch, [B, T, V], are its largest array by far. Here they exist for a
chunk of rows only. A chunk's gradient is taken while its logits are there: they are
computed once, and nothing of size V outlives the chunk but the head's own gradient.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int

from fdjax.errors import ConfigError
from fdjax.ops.chunking import BY_RULE, Chunking, Cut, cut_of
from fdjax.ops.layouts import several
from fdjax.ops.logprobs import entropy, token_logprobs
from fdjax.ranges import Number, require

__all__ = [
    "chunked_logprobs",
    "chunked_rows",
    "chunked_sum",
    "head_logits",
]

RowFunction = Callable[[Array, Any, Any], tuple[Array, Any]]
Chunk = Callable[[Any, Any, Any, Any], tuple[Any, Any, Any]]
"""`(hidden, head, rows, shared) -> (sums, sum shaped as the head, outputs)`."""


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

    Raises:
      ConfigError: the soft cap is not positive.
    """
    logits = jnp.einsum(
        "rd,vd->rv",
        hidden.reshape(-1, hidden.shape[-1]),
        head.astype(hidden.dtype),
        preferred_element_type=jnp.float32,
    ).reshape(*hidden.shape[:-1], head.shape[0])
    return _capped(logits, soft_cap)


def chunked_sum(
    function: RowFunction,
    hidden: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    *,
    mask: Bool[Array, "B T"],
    rows: Any,
    shared: Any = (),
    soft_cap: float | None = None,
    chunking: Chunking = BY_RULE,
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

    Raises:
      ConfigError: an array has not one entry for each hidden state, or the chunking
        does not fit.
    """
    rows = _checked({**rows, "mask": mask}, hidden)
    return _sum((function, soft_cap, chunking), hidden, head, rows, shared)


def chunked_rows(
    function: Callable[[Array, Any, Any], Any],
    hidden: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    *,
    mask: Bool[Array, "B T"],
    rows: Any,
    shared: Any = (),
    soft_cap: float | None = None,
    chunking: Chunking = BY_RULE,
) -> Any:
    """A function of each row's logits, row by row, without gradient.

    Args:
      function: `(logits [R, V], rows, shared) -> [R, ...]`, arrays or a pytree of them;
        the rest is as for `chunked_sum`. What it gives for masked rows is returned.
      hidden: last hidden states; zeros take the place of masked rows.
      head: output embeddings.
      mask: True for rows that count.
      rows: dict of arrays [B, T, ...].
      shared: pytree of arrays that all rows see.
      soft_cap: see `head_logits`.
      chunking: how.

    Returns:
      What the function gives, [B, T, ...].

    Raises:
      ConfigError: an array has not one entry for each hidden state, or the chunking
        does not fit.
    """

    def chunk(hidden: Any, head: Any, rows: Any, shared: Any) -> Any:
        logits = head_logits(hidden, head, soft_cap=soft_cap)
        return None, None, function(logits, rows, shared)

    rows = _checked({**rows, "mask": mask}, hidden)
    return _over_chunks(chunk, chunking, hidden, head, rows, shared)[2]


def chunked_logprobs(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    tokens: Int[Array, "B T"],
    *,
    mask: Bool[Array, "B T"],
    temperature: float = 1.0,
    soft_cap: float | None = None,
    chunking: Chunking = BY_RULE,
) -> tuple[Float32[Array, "B T"], Float32[Array, "B T"]]:
    """Log-probability of each token, and entropy, in nats; 0 where masked.

    Any function of them can be differentiated by `hidden` and `head`. The gradient
    computes the logits anew; losses that are sums over tokens need not
    (`losses.token_loss_from_hidden`). On TPUs the values come from a kernel that never
    writes a logit to memory, whatever the chunking.

    Args:
      hidden: at the position that predicts the token.
      head: output embeddings.
      tokens: ids below V.
      mask: True for rows that count.
      temperature: divides the logits; positive.
      soft_cap: see `head_logits`.
      chunking: how.

    Raises:
      ConfigError: the temperature or the soft cap is not positive, shapes do not agree,
        or the chunking does not fit.
    """
    settings = (temperature, soft_cap, chunking)
    rows = _checked({"tokens": tokens, "mask": mask}, hidden)
    return _logprobs(settings, hidden, head, rows)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum(settings: Any, hidden: Any, head: Any, rows: Any, shared: Any) -> Any:
    function, soft_cap, chunking = settings

    def chunk(hidden: Any, head: Any, rows: Any, shared: Any) -> Any:
        logits = head_logits(hidden, head, soft_cap=soft_cap)
        return function(logits, rows, shared), None, None

    return _over_chunks(chunk, chunking, hidden, head, rows, shared)[0]


def _sum_forward(settings: Any, hidden: Any, head: Any, rows: Any, shared: Any) -> Any:
    function, soft_cap, chunking = settings

    def chunk(hidden: Any, head: Any, rows: Any, shared: Any) -> Any:
        def of_logits(logits: Any) -> Any:
            return function(_capped(logits, soft_cap), rows, shared)

        logits = head_logits(hidden, head)
        sums, slope = jax.value_and_grad(of_logits, has_aux=True)(logits)
        product = partial(jnp.einsum, preferred_element_type=jnp.float32)
        slope = slope.astype(hidden.dtype)
        by_head = product("rv,rd->vd", slope, hidden)
        by_hidden = product("rv,vd->rd", slope, head).astype(hidden.dtype)
        return sums, by_head, by_hidden

    sums, by_head, by_hidden = _over_chunks(chunk, chunking, hidden, head, rows, shared)
    return sums, (by_hidden, by_head.astype(head.dtype))


def _sum_backward(settings: Any, gradients: Any, cotangents: Any) -> Any:
    scale, _ = cotangents
    by_hidden, by_head = (
        (scale * part.astype(jnp.float32)).astype(part.dtype) for part in gradients
    )
    return by_hidden, by_head, None, None


_sum.defvjp(_sum_forward, _sum_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _logprobs(settings: Any, hidden: Any, head: Any, rows: Any) -> Any:
    temperature, soft_cap, chunking = settings

    def chunk(hidden: Any, head: Any, rows: Any, shared: Any) -> Any:
        logits = head_logits(hidden, head, soft_cap=soft_cap)
        return None, None, _row_logprobs(logits, rows, temperature)

    def in_chunks(hidden: Any, head: Any, rows: Any) -> Any:
        return _over_chunks(chunk, chunking, hidden, head, rows, ())[2]

    def in_kernel(hidden: Any, head: Any, rows: Any) -> Any:
        # It imports Pallas, which takes long; nothing else here needs it.
        from fdjax.ops.fused_logprobs import fused_logprobs

        return fused_logprobs(
            hidden,
            head,
            **rows,
            temperature=temperature,
            soft_cap=soft_cap,
            mesh=chunking.mesh,
            batch_axes=cut.rows + cut.shared,
            vocabulary_axes=cut.vocabulary,
            seen_rows=cut.size(chunking, hidden, head),
        )

    cut = cut_of(chunking, hidden, head)
    if set(several(cut.mesh)) - {*cut.rows, *cut.vocabulary}:
        # What cuts neither is left to the compiler, and no kernel is.
        return in_chunks(hidden, head, rows)
    return jax.lax.platform_dependent(
        hidden, head, rows, tpu=in_kernel, default=in_chunks
    )


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


def _checked(rows: dict[str, Any], hidden: Any) -> dict[str, Any]:
    """The rows, each array with one entry for each hidden state."""
    for name, array in rows.items():
        if array.shape[:2] != hidden.shape[:2]:
            raise ConfigError(
                f"expected {name} of shape {hidden.shape[:2]}, one entry for each "
                f"hidden state, got {array.shape}"
            )
    return rows


def _capped(logits: Any, soft_cap: float | None) -> Any:
    if soft_cap is None:
        return logits
    require("soft_cap", soft_cap, Number(above=0))
    return soft_cap * jnp.tanh(logits / soft_cap)


def _row_logprobs(logits: Any, rows: Any, temperature: float) -> tuple[Any, Any]:
    mask = rows["mask"]
    logprobs = token_logprobs(logits, rows["tokens"], temperature=temperature)
    spread = entropy(logits, temperature=temperature)
    return jnp.where(mask, logprobs, 0.0), jnp.where(mask, spread, 0.0)


def _over_chunks(
    chunk: Chunk,
    chunking: Chunking,
    hidden: Any,
    head: Any,
    rows: Any,
    shared: Any,
) -> tuple[Any, Any, Any]:
    """Runs `chunk` on each device's chunks, and puts together what it gives.

    Returns:
      A pytree of sums over all rows, a sum shaped as the head, and a pytree of arrays
      [B, T, ...].
    """
    head = head.astype(hidden.dtype)
    cut = cut_of(chunking, hidden, head)
    size = cut.size(chunking, hidden, head)
    if not cut.rows:
        sums, table, outputs = _scan(chunk, size, cut, hidden, head, rows, shared)
        return sums, cut.at_rest(table), outputs
    batch, whole = PartitionSpec(cut.rows), PartitionSpec()
    # Only where the head was gathered do its axes at rest cut rows as well.
    gathered = tuple(name for name in cut.rest if name in cut.rows)
    alone = tuple(name for name in cut.rows if name not in gathered)

    def added(table: Any) -> Any:
        if gathered:
            table = jax.lax.psum_scatter(
                table, gathered, scatter_dimension=1, tiled=True
            )
        return jax.lax.psum(table, alone)

    # Manual over the rows' axes, so that gradients of the head are added up over
    # devices once and not for every chunk; the others are left to the compiler.
    def on_device(*operands: Any) -> tuple[Any, Any, Any]:
        sums, table, outputs = _scan(chunk, size, cut, *operands)
        return jax.lax.psum(sums, cut.rows), jax.tree.map(added, table), outputs

    sums, table, outputs = jax.shard_map(
        on_device,
        mesh=chunking.mesh,
        in_specs=(batch, whole, batch, whole),
        out_specs=(whole, PartitionSpec(None, gathered), batch),
        axis_names=set(cut.rows),
        check_vma=False,
    )(hidden, head, rows, shared)
    return sums, cut.at_rest(table), outputs


def _scan(
    chunk: Chunk, size: int, cut: Cut, hidden: Any, head: Any, rows: Any, shared: Any
) -> tuple[Any, Any, Any]:
    shape = hidden.shape[:2]
    count = math.prod(shape) // cut.parts
    chunks = -(-count // size)
    tokens = head.shape[0]

    def split(array: Any) -> Any:
        """[B, T, ...] as [chunks, parts, size, ...], filled up with zeros."""
        own = cut.own(array.reshape(cut.parts, count, *array.shape[2:]))
        widths = [(0, 0), (0, chunks * size - count)] + [(0, 0)] * (array.ndim - 2)
        full = jnp.pad(own, widths)
        pieces = full.reshape(cut.parts, chunks, size, *array.shape[2:])
        return jnp.swapaxes(pieces, 0, 1)

    def join(array: Any) -> Any:
        full = jnp.swapaxes(array, 0, 1)
        flat = full.reshape(cut.parts, chunks * size, *array.shape[3:])
        return flat[:, :count].reshape(*shape, *array.shape[3:])

    def given_back(array: Any) -> Any:
        return cut.own(array.reshape(cut.parts, size, *array.shape[1:]))

    def by_token(array: Any) -> Any:
        """What has a row for each token of the vocabulary lies as the head does."""
        is_table = array.ndim == 2 and array.shape[0] == tokens
        return cut.table(array) if is_table else array

    head = cut.table(head)
    shared = jax.tree.map(by_token, jax.tree.map(jnp.asarray, shared))

    def run(hidden: Any, rows: Any) -> tuple[Any, Any]:
        hidden = jnp.where(rows["mask"][..., None], hidden, 0)
        hidden, rows = jax.tree.map(cut.seen, (hidden, rows))
        sums, table, outputs = chunk(hidden, head, rows, shared)
        table = None if table is None else cut.table(table)
        return (sums, table), jax.tree.map(given_back, outputs)

    def body(total: Any, piece: Any) -> tuple[Any, Any]:
        sums, outputs = run(*piece)
        return jax.tree.map(jnp.add, total, sums), outputs

    pieces = jax.tree.map(split, (hidden, rows))
    first, _ = jax.eval_shape(run, *jax.tree.map(lambda x: x[0], pieces))
    sums, table = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
    table = None if table is None else cut.table(table)
    (sums, table), outputs = jax.lax.scan(body, (sums, table), pieces)
    return sums, table, jax.tree.map(join, outputs)
