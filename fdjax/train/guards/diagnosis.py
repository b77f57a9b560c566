"""Where a loss or gradient is not finite, parameter by parameter."""

from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

from fdjax.train.objectives import Objective
from fdjax.train.state import TrainState
from fdjax.train.step import make_gradient
from fdjax.train.teacher import Teacher

__all__ = ["Diagnose", "Diagnosis", "make_diagnosis"]


class Diagnosis(NamedTuple):
    """Of one batch by one state; the leaves are scalars on the device."""

    loss: Float32[Array, ""]
    norms: dict[str, Float32[Array, ""]]
    """Of the gradient of each parameter, by its path."""
    not_finite: dict[str, Int32[Array, ""]]
    """Entries of that gradient that are NaN or infinite."""


@runtime_checkable
class Diagnose(Protocol):
    """Where loss and gradient of a batch are not finite; leaves the state alone."""

    def __call__(self, state: TrainState, batch: Any, *, behind: int = 0) -> Diagnosis:
        """With weights as they are, and schedules as they were `behind` steps ago."""
        ...


def make_diagnosis(
    objective: Objective, *, teacher: Teacher | None = None, microbatches: int = 1
) -> Diagnose:
    """Builds what a train step computes up to the gradient, compiled when first called.

    Args:
      objective: what is minimised.
      teacher: where its weights come from; None where the objective reads none.
      microbatches: parts that the batch is cut into.
    """
    gradient = make_gradient(objective, teacher=teacher, microbatches=microbatches)

    @partial(jax.jit, static_argnames="behind")
    def diagnose(state: TrainState, batch: Any, *, behind: int = 0) -> Diagnosis:
        before = state._replace(step=state.step - behind, base=None)
        loss, _, grads = gradient(before, state.base, batch)
        leaves = {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
        }
        return Diagnosis(
            loss=loss,
            norms={name: jnp.linalg.norm(leaf) for name, leaf in leaves.items()},
            not_finite={
                name: (~jnp.isfinite(leaf)).sum() for name, leaf in leaves.items()
            },
        )

    return diagnose
