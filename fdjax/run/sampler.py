"""The sampler of a run: one for all that its policies say."""

import math

import jax
from jax.sharding import Mesh

from fdjax.model import Model
from fdjax.run.config import SamplerConfig
from fdjax.sampling import (
    Sampler,
    SamplingConfig,
    SharedSampler,
    SlotSampler,
    SlotsConfig,
    StopStrings,
)
from fdjax.sharding import batch_parts, make_mesh

__all__ = ["make_sampler"]

_SLOTS = 64


def make_sampler(
    settings: SamplerConfig,
    model: Model,
    sampling: SamplingConfig,
    mesh: Mesh,
    *,
    longest: int,
    attempts: int,
    stop_strings: StopStrings | None = None,
) -> Sampler:
    """A sampler on the devices of the training mesh, in a shape of its own.

    Several processes share it.

    Args:
      settings: as the run has them.
      model: the policy.
      sampling: how to draw.
      mesh: of training.
      longest: tokens of the longest prompt with what follows it.
      attempts: of an iteration.
      stop_strings: end rows, too.

    Raises:
      ConfigError: settings do not fit the model or the devices.
    """
    shared = mesh.shape["fsdp"] * mesh.shape["tensor"]
    tensor = settings.tensor or math.gcd(shared, model.config.num_kv_heads)
    own = make_mesh(data=-1, tensor=tensor)
    parts = batch_parts(own)
    slots = settings.slots or min(attempts, _SLOTS)
    sampler = SlotSampler(
        model,
        sampling,
        SlotsConfig(
            longest=longest,
            slots=-(-slots // parts) * parts,
            page=settings.page,
            capacity=settings.capacity,
        ),
        own,
        stop_strings=stop_strings,
    )
    return sampler if jax.process_count() == 1 else SharedSampler(sampler)
