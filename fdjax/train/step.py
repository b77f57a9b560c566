"""The sharded train step: loss, gradient, optimizer, teacher; taken or skipped."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float32

from fdjax.errors import ConfigError
from fdjax.model import Model
from fdjax.ranges import Whole, require
from fdjax.records import Mean, Metrics, union
from fdjax.sharding import batch_sharding, check_rows
from fdjax.train.objectives import Objective
from fdjax.train.state import TrainState, state_shardings
from fdjax.train.teacher import TEACHER_RATE, update_teacher

__all__ = ["make_train_step"]


def make_train_step(
    model: Model,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    teacher_rate: float = 0.0,
    microbatches: int = 1,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Builds `step(state, batch) -> (state, metrics)`, jitted, donating its state.

    The batch is a NamedTuple of arrays whose first axis is the global batch and which
    has a `mask` [B, T]; the loss is a sum over the global batch divided by the number
    of scored tokens in it, however it is sharded or cut into microbatches. Where there
    are several processes, place it with `fdjax.sharding.shard_batch`.

    A step is not taken where loss, gradient or new parameters are not finite, or where
    nothing is scored: parameters, moments, schedule and teacher stay as they are, bit
    for bit, and only `step` goes on.

    Args:
      model: the policy, for its parameters' layout.
      objective: what to minimise (`fdjax.train.objectives`).
      optimizer: an optax gradient transformation.
      mesh: the device mesh; the batch is sharded over its data axes.
      teacher_rate: η of the EMA teacher where the objective reads one; 0 keeps it
        frozen.
      microbatches: parts that the batch is cut into to save memory.

    Raises:
      ConfigError: a setting is out of range. The step itself raises it where the state
        has no teacher for the objective, or the rows do not divide.

    Metrics: those of the objective, train/loss, train/gradient_norm (before clipping),
    all over the steps taken; train/scored_tokens, train/skipped (share of steps not
    taken because a value was not finite), train/empty (share of steps not taken because
    nothing was scored).
    """
    require("teacher_rate", teacher_rate, TEACHER_RATE)
    require("microbatches", microbatches, Whole(1))
    layout = state_shardings(model, optimizer, mesh, teacher=objective.reads_teacher)
    gradient = jax.value_and_grad(objective, has_aux=True)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        scored = batch.mask.sum().astype(jnp.float32)
        normalizer = jnp.maximum(scored, 1.0)

        def part(batch: Any) -> tuple[Float32[Array, ""], Metrics, Any]:
            (loss, metrics), grads = gradient(
                state.params, state.teacher, batch, normalizer
            )
            return loss, metrics, grads

        if microbatches == 1:
            loss, metrics, grads = part(batch)
        else:
            loss, metrics, grads = _accumulate(part, batch, microbatches)
        norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        changed = state._replace(params=params, opt_state=opt_state)
        if objective.reads_teacher:
            teacher = update_teacher(state.teacher, params, rate=teacher_rate)
            changed = changed._replace(teacher=teacher)
        empty = scored == 0
        finite = jnp.isfinite(loss) & jnp.isfinite(norm) & _all_finite(params)
        taken = finite & ~empty
        # Not arithmetic with 0, which would let NaN through.
        state = jax.tree.map(partial(jnp.where, taken), changed, state)
        one = jnp.ones((), jnp.float32)
        of_step = {
            "train/loss": Mean(loss, one),
            "train/gradient_norm": Mean(norm, one),
        }
        metrics = jax.tree.map(
            lambda x: jnp.where(taken, x, jnp.zeros_like(x)), union(metrics, of_step)
        )
        counts = {
            "train/scored_tokens": Mean(scored, one),
            "train/skipped": Mean((~finite & ~empty).astype(jnp.float32), one),
            "train/empty": Mean(empty.astype(jnp.float32), one),
        }
        return state._replace(step=state.step + 1), union(metrics, counts)

    compiled = jax.jit(
        step,
        in_shardings=(layout, batch_sharding(mesh)),
        out_shardings=(layout, None),
        donate_argnums=0,
    )

    # What is jitted stays within reach as `__wrapped__`, for instance to lower it.
    @wraps(compiled)
    def checked(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        if (state.teacher is not None) != objective.reads_teacher:
            raise ConfigError(
                f"Expected a state {'with' if objective.reads_teacher else 'without'} "
                "a teacher, as the objective reads one or not; make it with "
                f"init_state(..., teacher={objective.reads_teacher}) or restart."
            )
        check_rows(batch, mesh, microbatches=microbatches)
        return compiled(state, batch)

    return checked


def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _accumulate(
    part: Callable[[Any], tuple[Float32[Array, ""], Metrics, Any]],
    batch: Any,
    parts: int,
) -> tuple[Float32[Array, ""], Metrics, Any]:
    """Sums of `part` over `parts` interleaved slices of the batch.

    Row b goes to slice b mod `parts`, so that a sharded batch stays on its devices.
    """
    sliced = jax.tree.map(
        lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), batch
    )
    first = jax.eval_shape(part, jax.tree.map(lambda x: x[0], sliced))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)

    def body(total: Any, piece: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, part(piece)), None

    total, _ = jax.lax.scan(body, zeros, sliced)
    return total
