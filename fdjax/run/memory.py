"""What a run holds on each device, known before it holds anything."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fdjax.model import LoRA, Model, adapt, init_adapters
from fdjax.run.sampler import RunSampler
from fdjax.sampling.memory import device_bytes
from fdjax.sampling.server import ServerSampler
from fdjax.train import Teacher, init_state, state_shardings

__all__ = ["held_bytes", "sampler_bytes"]


def held_bytes(
    model: Model,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    teacher: Teacher | None = None,
    lora: LoRA | None = None,
) -> Mapping[str, int]:
    """Bytes on the fullest device of what stays from step to step.

    On top come activations and gradients while a step runs, and what the sampler holds
    while it samples (`sampler_bytes`).

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
        "policy" if lora is None else "adapters": device_bytes(
            state.params, layout.params
        ),
        "moments": device_bytes(state.opt_state, layout.opt_state),
        "teacher": device_bytes(state.teacher, layout.teacher),
    }
    if lora is None:
        return held
    dtype = jnp.dtype(lora.base_dtype)
    base = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), state.base
    )
    return {"base": device_bytes(base, layout.base), **held}


def sampler_bytes(
    sampler: RunSampler, model: Model, lora: LoRA | None = None
) -> Mapping[str, int]:
    """Bytes on the fullest device of what stays while a run samples.

    Args:
      sampler: of the run; a server's memory is its own.
      model: the policy.
      lora: the adapters that are on it, if any.

    Returns:
      Bytes by name: weights, pages; nothing for a server.
    """
    if isinstance(sampler, ServerSampler):
        return {}
    key = jax.random.key(0)
    params = jax.eval_shape(model.init, key)
    if lora is not None:
        fresh = jax.eval_shape(lambda base: init_adapters(key, base, lora), params)
        params = adapt(params, fresh)
    return sampler.held_bytes(params)
