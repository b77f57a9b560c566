"""What a sampler holds on each device, known before it holds anything."""

import math
from collections.abc import Mapping
from typing import Any

import jax

from fdjax.model import Model, pages_sharding, split
from fdjax.sampling.config import SlotsConfig
from fdjax.sampling.weights import copy_shapes
from fdjax.sharding import batch_parts

__all__ = ["device_bytes", "held_bytes"]


def held_bytes(model: Model, config: SlotsConfig, params: Any) -> Mapping[str, int]:
    """Bytes on the fullest device from `publish` to `rest`, by name: weights, pages.

    Args:
      model: with the mesh to sample on, or none for the first device.
      config: slots and pages.
      params: what would be published, or its shapes.
    """
    parts = 1 if model.mesh is None else batch_parts(model.mesh)
    pages = jax.eval_shape(lambda: model.init_pages(config.pages(parts), config.page))
    layout = None if model.mesh is None else pages_sharding(model.mesh)
    trees = [tree for tree in split(params) if tree is not None]
    return {
        "weights": sum(device_bytes(*copy_shapes(model, tree)) for tree in trees),
        "pages": device_bytes(pages, layout),
    }


def device_bytes(shapes: Any, layout: Any) -> int:
    """Bytes of a tree of arrays on the fullest device.

    Args:
      shapes: arrays, or their shapes.
      layout: tree of the same structure with their shardings; None where all lie on
        one device.
    """
    leaves = jax.tree.leaves(shapes)
    cuts = [leaf.shape for leaf in leaves]
    if layout is not None:
        placed = zip(leaves, jax.tree.leaves(layout), strict=True)
        cuts = [sharding.shard_shape(leaf.shape) for leaf, sharding in placed]
    return sum(
        math.prod(cut) * leaf.dtype.itemsize
        for leaf, cut in zip(leaves, cuts, strict=True)
    )
