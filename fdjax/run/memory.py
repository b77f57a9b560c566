"""What a run holds on each device, known before it holds anything."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fdjax.model import LoRA, Model
from fdjax.train import Teacher, init_state, state_shardings

__all__ = ["held_bytes"]


def held_bytes(
    model: Model,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    teacher: Teacher | None = None,
    lora: LoRA | None = None,
) -> Mapping[str, int]:
    """Bytes on the fullest device of what stays from step to step.

    On top come activations and gradients while a step runs, and the sampler's own
    weights and pages.

    Args:
      model: the policy.
      optimizer: its moments are held.
      mesh: over which all is laid out.
      teacher: whose weights are held, if any.
      lora: the adapters that are trained, if not all parameters.

    Returns:
      Bytes by name: policy, moments, teacher; with `lora` adapters in place of policy,
      and their base.
    """
    layout = state_shardings(model, optimizer, mesh, teacher=teacher, lora=lora)
    state = jax.eval_shape(
        lambda key: init_state(model, optimizer, mesh, key, teacher=teacher, lora=lora),
        jax.random.key(0),
    )
    held = {
        "policy" if lora is None else "adapters": _bytes(state.params, layout.params),
        "moments": _bytes(state.opt_state, layout.opt_state),
        "teacher": _bytes(state.teacher, layout.teacher),
    }
    if lora is None:
        return held
    dtype = jnp.dtype(lora.base_dtype)
    base = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), state.base
    )
    return {"base": _bytes(base, layout.base), **held}


def _bytes(tree: Any, layout: Any) -> int:
    leaves = zip(jax.tree.leaves(tree), jax.tree.leaves(layout), strict=True)
    return sum(
        math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, sharding in leaves
    )
