"""Rows of a batch over a mesh: each stays on its own device."""

from jax.sharding import Mesh
from jaxtyping import Array, Shaped

from fdjax.ops.layouts import count_devices, lay_out, several

__all__ = ["spread_rows"]

_BATCH_AXES = ("data", "fsdp")


def spread_rows(x: Shaped[Array, "B ..."], mesh: Mesh | None) -> Shaped[Array, "B ..."]:
    """The same rows, each whole on its own device.

    Said at the boundaries of layers, so that the compiler moves parameters to the rows
    and never copies rows, or sums of them, to all devices. A number of rows that does
    not divide is left to the compiler, and so is everything without a mesh.

    Args:
      x: activations.
      mesh: rows lie over its axes data and fsdp.
    """
    axes = tuple(name for name in several(mesh) if name in _BATCH_AXES)
    if not axes or x.shape[0] % count_devices(mesh, axes):
        return x
    return lay_out(x, mesh, axes)
