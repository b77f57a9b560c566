"""The sharded train step: loss, gradient, optimizer, teacher."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fdjax.errors import ConfigError
from fdjax.model import Model
from fdjax.records import Mean, Metrics, union
from fdjax.sharding import batch_sharding
from fdjax.train.objectives import Objective
from fdjax.train.state import TrainState, state_shardings
from fdjax.train.teacher import update_teacher

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
    are several processes, place it with `jax.device_put(batch, batch_sharding(mesh))`.

    Args:
      model: the policy, for its parameters' layout.
      objective: what to minimise (`fdjax.train.objectives`).
      optimizer: an optax gradient transformation.
      mesh: the device mesh; the batch is sharded over its data axes.
      teacher_rate: η of the EMA teacher; 0 keeps it frozen.
      microbatches: parts that the batch is cut into to save memory.

    Raises:
      ConfigError: a setting is out of range.
    """
    if not 0.0 <= teacher_rate <= 1.0 or microbatches < 1:
        raise ConfigError(
            "teacher_rate must lie in [0, 1] and microbatches be at least 1, got "
            f"{teacher_rate} and {microbatches}."
        )
    layout = state_shardings(model, optimizer, mesh)
    gradient = jax.value_and_grad(objective, has_aux=True)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        scored = batch.mask.sum().astype(jnp.float32)
        normalizer = jnp.maximum(scored, 1.0)

        def part(batch: Any) -> tuple[jax.Array, Metrics, Any]:
            (loss, metrics), grads = gradient(
                state.params, state.teacher, batch, normalizer
            )
            return loss, metrics, grads

        if microbatches == 1:
            loss, metrics, grads = part(batch)
        else:
            loss, metrics, grads = _accumulate(part, batch, microbatches)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new_state = TrainState(
            params=params,
            opt_state=opt_state,
            teacher=update_teacher(state.teacher, params, rate=teacher_rate),
            step=state.step + 1,
            key=state.key,
        )
        one = jnp.ones((), jnp.float32)
        of_step = {
            "train/loss": Mean(loss, one),
            "train/gradient_norm": Mean(optax.tree.norm(grads), one),
            "train/scored_tokens": Mean(scored, one),
        }
        return new_state, union(metrics, of_step)

    return jax.jit(
        step,
        in_shardings=(layout, batch_sharding(mesh)),
        out_shardings=(layout, None),
        donate_argnums=0,
    )


def _accumulate(
    part: Callable[[Any], tuple[jax.Array, Metrics, Any]], batch: Any, parts: int
) -> tuple[jax.Array, Metrics, Any]:
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
