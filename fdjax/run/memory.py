"""What a run holds on each device, known before it holds anything."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fdjax.model import LoRA, Model, adapt, init_adapters
from fdjax.run.sampler import RunSampler
from fdjax.run.task import Arm, phases_of
from fdjax.sampling.memory import device_bytes
from fdjax.sampling.server import ServerSampler
from fdjax.train import (
    PhaseConfig,
    Teacher,
    init_state,
    make_optimizer,
    state_shardings,
)

__all__ = ["held_bytes", "held_in", "memory_note", "sampler_bytes"]

_GIB = 1 << 30


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


def held_in(
    phase: PhaseConfig, model: Model, lora: LoRA | None = None
) -> dict[str, int]:
    """Bytes on the fullest device that stay from step to step, by name.

    The pretrained policy stays beside the one that is trained; adapters share it.
    """
    assert model.mesh is not None  # a run has one
    held = held_bytes(
        model,
        make_optimizer(phase.optimizer),
        model.mesh,
        teacher=phase.held_teacher,
        lora=lora,
    )
    return dict(held) if lora else {"pretrained": held["policy"], **held}


def memory_note(
    arms: Sequence[Arm],
    model: Model,
    lora: LoRA | None,
    sampler: RunSampler,
) -> str:
    """What is on each device of a run, and when; of the phase that holds most."""
    held = max(
        (held_in(phase, model, lora) for phase in phases_of(arms)),
        key=lambda parts: sum(parts.values()),
    )
    sampling = sampler_bytes(sampler, model, lora)
    always = sum(held.values())
    note = (
        f"To be held on each device, GiB: {_parts(held)}; together "
        f"{always / _GIB:.2f}. In a step gradients and activations come on top"
    )
    if not sampling:
        return f"{note}; the sampler's memory is the server's."
    return (
        f"{note}, while sampling the sampler's {_parts(sampling)} instead: "
        f"{(always + sum(sampling.values())) / _GIB:.2f}."
    )


def _parts(held: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size / _GIB:.2f}" for name, size in held.items())
