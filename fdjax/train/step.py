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
from fdjax.model import LoRA, Model
from fdjax.ranges import Whole, require
from fdjax.records import Mean, Metrics, union
from fdjax.sharding import batch_sharding, check_rows
from fdjax.train.microbatches import accumulate, padding
from fdjax.train.objectives import Objective
from fdjax.train.state import TrainState, on_base, state_shardings
from fdjax.train.teacher import LiveTeacher, Teacher, update_teacher

__all__ = ["make_gradient", "make_train_step"]

_WIDTHS = 4
"""Of microbatches by default."""


def make_train_step(
    model: Model,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    teacher: Teacher | None = None,
    lora: LoRA | None = None,
    microbatches: int = 1,
    widths: int | None = None,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Builds `step(state, batch) -> (state, metrics)`, jitted, donating its state.

    The batch is a NamedTuple of arrays whose first axis is the global batch
    (`rollout.Batch`); each term's loss is a sum over the global batch divided by the
    term's normalizer of it, however it is sharded or cut into microbatches. Where there
    are several processes, place it with `fdjax.sharding.shard_batch`.

    A step is not taken where loss, gradient or new parameters are not finite, or where
    nothing is scored: parameters, moments and schedule stay as they are, bit for bit,
    no average moves, and only `step` goes on.

    With `lora` the gradient is by the adapters alone: the base is an argument of the
    compiled step that it neither donates nor returns.

    Args:
      model: the policy, for its parameters' layout.
      objective: what to minimise (`fdjax.train.objectives`).
      optimizer: an optax gradient transformation.
      mesh: the device mesh; the batch is sharded over its data axes.
      teacher: where its weights come from; None where the objective reads none.
      lora: the adapters that the state trains; None where it trains all parameters.
      microbatches: parts that the batch is cut into to save memory.
      widths: at which a microbatch can be computed: rows go to microbatches by length,
        and each is as wide as its longest row needs, in fractions of the full width.
        All are compiled, into one program. By default 4 where there are microbatches,
        else 1.

    Raises:
      ConfigError: a setting is out of range, or there is a teacher that is not read, or
        the other way round. The step itself raises it where the state does not hold the
        teacher's weights or the base, or the rows do not divide.

    Metrics: those of the objective, train/loss, train/gradient_norm (before clipping),
    train/padding (share of what student and teacher read, with a `rollout.Batch`), all
    over the steps taken; train/scored_tokens, train/skipped (share of steps not
    taken because a value was not finite), train/empty (share of steps not taken because
    nothing was scored).
    """
    require("microbatches", microbatches, Whole(1))
    if widths is not None:
        require("widths", widths, Whole(1))
    if (teacher is not None) != objective.reads_teacher:
        raise ConfigError(
            "expected a teacher where the objective reads one, and none elsewhere, got "
            f"{teacher} for one that "
            f"{'reads one' if objective.reads_teacher else 'reads none'}"
        )
    layout = state_shardings(model, optimizer, mesh, teacher=teacher, lora=lora)

    gradient = make_gradient(
        objective,
        teacher=teacher,
        microbatches=microbatches,
        widths=widths or (_WIDTHS if microbatches > 1 else 1),
        layout=layout.params,
        mesh=mesh,
    )

    def step(state: TrainState, base: Any, batch: Any) -> tuple[TrainState, Metrics]:
        scored = objective.scored(batch).sum().astype(jnp.float32)
        loss, metrics, grads = gradient(state, base, batch)
        norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        empty = scored == 0
        finite = jnp.isfinite(loss) & jnp.isfinite(norm) & _all_finite(params)
        taken = finite & ~empty
        # Not arithmetic with 0, which would let NaN through.
        params, opt_state = jax.tree.map(
            partial(jnp.where, taken),
            (params, opt_state),
            (state.params, state.opt_state),
        )
        after = state._replace(params=params, opt_state=opt_state, step=state.step + 1)
        if teacher is not None:
            follows = update_teacher(
                state.teacher, params, teacher, step=after.step, taken=taken
            )
            after = after._replace(teacher=follows)
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
        return after, union(metrics, counts)

    trained = layout._replace(base=None)
    compiled = jax.jit(
        step,
        in_shardings=(trained, layout.base, batch_sharding(mesh)),
        out_shardings=(trained, None),
        donate_argnums=0,
    )

    # What is jitted stays within reach as `__wrapped__`, for instance to lower it:
    # a function of the state without its base, the base and the batch.
    @wraps(compiled)
    def checked(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        if (state.teacher is not None) != (layout.teacher is not None):
            raise ConfigError(
                "Expected a state "
                f"{'without' if layout.teacher is None else 'with'} a teacher's "
                f"weights, as objective and teacher ask for, got one "
                f"{'without' if state.teacher is None else 'with'}; make it with "
                f"init_state(..., teacher={teacher}) or restart."
            )
        if (state.base is not None) != (lora is not None):
            raise ConfigError(
                f"Expected a state {'without' if lora is None else 'with'} a base, as "
                f"lora={lora} asks for, got one "
                f"{'without' if state.base is None else 'with'}; make it with "
                "init_state(..., lora=...) or restart."
            )
        check_rows(batch, mesh, microbatches=microbatches)
        after, metrics = compiled(state._replace(base=None), state.base, batch)
        return after._replace(base=state.base), metrics

    return checked


def make_gradient(
    objective: Objective,
    *,
    teacher: Teacher | None,
    microbatches: int,
    widths: int = 1,
    layout: Any = None,
    mesh: Mesh | None = None,
) -> Callable[[TrainState, Any, Any], tuple[Float32[Array, ""], Metrics, Any]]:
    """Builds `gradient(state, base, batch) -> (loss, metrics, gradient)`; not jitted.

    The loss and the gradient of what the state trains are those of the global batch.

    Args:
      objective: what to minimise.
      teacher: where its weights come from; None where the objective reads none.
      microbatches: parts that the batch is cut into.
      layout: where each part of the gradient lies, of a microbatch as of all: that of
        the parameters, so that devices add up their own shards alone. By default the
        compiler chooses.
      widths: of a microbatch (`make_train_step`).
      mesh: devices over which rows lie.
    """

    def loss_of(
        params: Any, weights: Any, base: Any, *rest: Any
    ) -> tuple[Float32[Array, ""], Metrics]:
        read = None if weights is None else on_base(base, weights)
        return objective.loss(on_base(base, params), read, *rest)

    by_params = jax.value_and_grad(loss_of, has_aux=True)

    def gradient(
        state: TrainState, base: Any, batch: Any
    ) -> tuple[Float32[Array, ""], Metrics, Any]:
        normalizers = objective.normalizers(batch)
        # The gradient is by the first argument alone: a live teacher has none.
        weights = state.params if isinstance(teacher, LiveTeacher) else state.teacher

        def part(batch: Any) -> tuple[Float32[Array, ""], Metrics, Any]:
            (loss, metrics), grads = by_params(
                state.params, weights, base, batch, normalizers, state.step
            )
            if layout is not None:
                grads = jax.lax.with_sharding_constraint(grads, layout)
            return loss, union(metrics, padding(batch)), grads

        return accumulate(part, batch, parts=microbatches, widths=widths, mesh=mesh)

    return gradient


def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
