"""A batch in parts, each as wide as its longest attempt asks for."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float32, Int32

from fdjax.ops.layouts import lay_out
from fdjax.records import Mean, Metrics
from fdjax.rollout.arrays import Batch, TeacherPrompts

__all__ = ["accumulate", "padding"]

Part = Callable[[Any], tuple[Float32[Array, ""], Metrics, Any]]
"""`(rows of a batch) -> (loss, metrics, gradient)`: sums, so that parts add up."""


def accumulate(
    part: Part, batch: Any, *, parts: int, widths: int, mesh: Mesh | None = None
) -> tuple[Float32[Array, ""], Metrics, Any]:
    """Sums of `part` over slices of the batch, of as many rows each.

    With one width, row b goes to slice b mod `parts`. With several, rows go by length,
    and a slice is computed at the smallest width that holds its rows: what is left out
    is padding, which adds nothing. Devices decide by lengths of the global batch, so
    all take the same width. Each width is compiled, in one program.

    Args:
      part: of some rows.
      batch: NamedTuple of arrays whose first axis is the batch; only of a `Batch` is it
        known what may be left out.
      parts: slices; they divide the rows.
      widths: of a slice: at most, multiples of this fraction of the full width.
      mesh: devices over which rows lie.
    """
    if widths > 1 and isinstance(batch, Batch):
        order = jnp.argsort(_widths_needed(batch, widths), stable=True)
        sliced = jax.tree.map(
            lambda x: lay_out(
                x[order].reshape(parts, -1, *x.shape[1:]),
                mesh,
                None,
                ("data", "fsdp"),
            ),
            batch,
        )
        run = partial(_at_its_width, part, widths)
    else:
        # A sharded batch stays on its devices.
        sliced = jax.tree.map(
            lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), batch
        )
        run = part
    first = jax.tree.map(lambda x: x[0], sliced)
    if parts == 1:
        return run(first)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(run, first)
    )

    def body(total: Any, piece: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, run(piece)), None

    total, _ = jax.lax.scan(body, zeros, sliced)
    return total


def padding(batch: Any) -> Metrics:
    """The share of padding in what student and teacher read; of a `Batch` alone.

    Metrics: train/padding.
    """
    if not isinstance(batch, Batch):
        return {}
    read = [batch.prompt_valid, batch.response_valid]
    for prompts in _teachers(batch):
        read += [prompts.valid, batch.response_valid]
    valid = sum(jnp.asarray(each).sum().astype(jnp.float32) for each in read)
    size = jnp.float32(sum(each.size for each in read))
    return {"train/padding": Mean(size - valid, size)}


def _at_its_width(part: Part, widths: int, batch: Batch) -> Any:
    """`part` of the batch without columns that no row needs."""
    branches = [partial(_cut, part, number, widths) for number in range(widths)]
    return jax.lax.switch(_widths_needed(batch, widths).max(), branches, batch)


def _cut(part: Part, number: int, widths: int, batch: Batch) -> Any:
    """`part` at a width, counted from 0 for the smallest."""
    prompt = _columns(batch.prompts.shape[1], number, widths)
    response = _columns(batch.responses.shape[1], number, widths)

    def teacher(prompts: TeacherPrompts | None) -> TeacherPrompts | None:
        if prompts is None:
            return None
        width = _columns(prompts.prompts.shape[1], number, widths)
        return TeacherPrompts(
            prompts.prompts[:, -width:],
            prompts.valid[:, -width:],
            prompts.mask[:, :response],
        )

    old = batch.old_logprobs
    return part(
        batch._replace(
            prompts=batch.prompts[:, -prompt:],
            prompt_valid=batch.prompt_valid[:, -prompt:],
            responses=batch.responses[:, :response],
            response_valid=batch.response_valid[:, :response],
            written=batch.written[:, :response],
            old_logprobs=None if old is None else old[:, :response],
            feedback=teacher(batch.feedback),
            wrong_feedback=teacher(batch.wrong_feedback),
        )
    )


def _columns(full: int, number: int, widths: int) -> int:
    return -(-full * (number + 1) // widths)


def _widths_needed(batch: Batch, widths: int) -> Int32[Array, " B"]:
    """Of each row the smallest width that holds it, counted from 0."""
    valid = [jnp.asarray(batch.prompt_valid)[:, ::-1], batch.response_valid]
    valid += [jnp.asarray(read.valid)[:, ::-1] for read in _teachers(batch)]
    needed = [
        sum(
            (_length(each) > _columns(each.shape[1], number, widths)).astype(jnp.int32)
            for number in range(widths - 1)
        )
        for each in valid
    ]
    return jnp.stack(needed).max(axis=0)


def _length(valid: Bool[Array, "B T"]) -> Int32[Array, " B"]:
    """Columns up to the last that is valid."""
    places = jnp.arange(1, valid.shape[1] + 1, dtype=jnp.int32)
    return jnp.where(valid, places[None], 0).max(axis=1)


def _teachers(batch: Batch) -> Iterator[TeacherPrompts]:
    for prompts in (batch.feedback, batch.wrong_feedback):
        if prompts is not None:
            yield prompts
