"""Where arrays lie on a mesh, as functions say it to the compiler."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

__all__ = ["count_devices", "lay_out", "several"]


def several(mesh: Mesh | None) -> tuple[str, ...]:
    """Names of the axes along which there is more than one device."""
    if mesh is None:
        return ()
    return tuple(name for name, size in mesh.shape.items() if size > 1)


def count_devices(mesh: Mesh | None, axes: Sequence[str]) -> int:
    """How many devices lie along the axes; 1 without a mesh."""
    return 1 if mesh is None else math.prod(mesh.shape[name] for name in axes)


def lay_out(
    array: Shaped[Array, "..."],
    mesh: Mesh | None,
    *axes: str | tuple[str, ...] | None,
) -> Shaped[Array, "..."]:
    """The same array, cut over the mesh as said; a no-op on one device.

    Inside a `shard_map` over other axes it speaks of what the compiler has left.

    Args:
      array: of any shape.
      mesh: the devices, with Auto axes; None for one.
      axes: for each axis of the array those of the mesh that cut it; those not named
        at the end are whole.
    """
    if mesh is None or mesh.size == 1:
        return array
    here = jax.sharding.get_abstract_mesh()
    layout = NamedSharding(mesh if here.empty else here, PartitionSpec(*axes))
    return jax.lax.with_sharding_constraint(array, layout)
