"""What a run holds on each device, known before it holds anything."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from fdjax.model import Model
from fdjax.train import Teacher, init_state, state_shardings

__all__ = ["held_bytes"]


def held_bytes(
    model: Model,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    teacher: Teacher | None = None,
) -> Mapping[str, int]:
    """Bytes on the fullest device of what stays from step to step.

    Activations, gradients and the sampler's cache come on top while a step or a sampler
    runs.

    Args:
      model: the policy.
      optimizer: its moments are held.
      mesh: over which all is laid out.
      teacher: whose weights are held, if any.

    Returns:
      Bytes by name: policy, moments, teacher.
    """
    layout = state_shardings(model, optimizer, mesh, teacher=teacher)
    state = jax.eval_shape(
        lambda key: init_state(model, optimizer, mesh, key, teacher=teacher),
        jax.random.key(0),
    )
    return {
        "policy": _bytes(state.params, layout.params),
        "moments": _bytes(state.opt_state, layout.opt_state),
        "teacher": _bytes(state.teacher, layout.teacher),
    }


def _bytes(tree: Any, layout: Any) -> int:
    leaves = zip(jax.tree.leaves(tree), jax.tree.leaves(layout), strict=True)
    return sum(
        math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, sharding in leaves
    )
