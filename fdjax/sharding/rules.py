"""One table from logical axis to mesh axes, and the layouts that follow from it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from fdjax.errors import ConfigError

__all__ = [
    "DEFAULT_RULES",
    "Rules",
    "batch_parts",
    "batch_sharding",
    "check_rows",
    "init_sharded",
    "place_alike",
    "shard_batch",
    "shardings",
]

Rules = Mapping[str, str | None]
"""Logical axis name to the mesh axis it is cut over; None keeps it whole."""

DEFAULT_RULES: Rules = {
    "layer": None,
    "embed": "fsdp",
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "head_dim": None,
    "rank": None,
}
"""Parameters are cut over fsdp along the width, over tensor along everything wide.

All that holds parameters goes by this table: loading, state, step, sampler. So none
lays out anew what another made, and the mesh alone says how a run is cut.
"""

_BATCH_AXES = ("data", "fsdp")


def _is_axes(node: Any) -> bool:
    return isinstance(node, tuple)


def shardings(
    mesh: Mesh, logical_axes: Any, like: Any, rules: Rules = DEFAULT_RULES
) -> Any:
    """A NamedSharding for each leaf of a tree of logical axis names.

    Args:
      mesh: the device mesh.
      logical_axes: tree whose leaves are tuples of logical axis names.
      like: arrays or `jax.ShapeDtypeStruct`s in the same tree.
      rules: the table.

    Raises:
      ConfigError: a name is not in the table, its mesh axis not in the mesh, two axes
        of one array are cut over the same mesh axis, or one cannot be cut evenly.
    """

    def layout(path: Any, axes: tuple[str, ...], leaf: Any) -> NamedSharding:
        unknown = [name for name in axes if name not in rules]
        if unknown:
            raise ConfigError(
                f"expected logical axes among {sorted(rules)}, got {unknown}: add a "
                "rule for them"
            )
        spec = [rules[name] for name in axes]
        cut = [name for name in spec if name is not None]
        missing = [name for name in cut if name not in mesh.axis_names]
        if missing or len(set(cut)) != len(cut):
            raise ConfigError(
                f"expected different mesh axes among {mesh.axis_names} for the logical "
                f"axes {axes}, got {spec}: change the rules"
            )
        sizes = dict(zip(axes, leaf.shape, strict=True))
        parts = [1 if name is None else mesh.shape[name] for name in spec]
        if any(size % count for size, count in zip(leaf.shape, parts, strict=True)):
            raise ConfigError(
                f"expected each axis of {jax.tree_util.keystr(path)}, {sizes}, to be "
                f"divisible by its part of the mesh {dict(mesh.shape)}, cut as {spec}: "
                "take a mesh with fewer devices along that axis (fsdp cuts nothing but "
                "the width)"
            )
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(
        layout, logical_axes, like, is_leaf=_is_axes
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Layout of arrays whose first axis is the global batch: cut over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(_BATCH_AXES))


def batch_parts(mesh: Mesh) -> int:
    """Parts that a batch is cut into, as many rows in each."""
    return math.prod(mesh.shape[axis] for axis in _BATCH_AXES)


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """A batch of host arrays on the mesh; each device gets its own rows.

    Raises:
      ConfigError: see `check_rows`.
    """
    check_rows(batch, mesh)
    return place_alike(batch, batch_sharding(mesh))


def place_alike(arrays: Any, layout: Sharding) -> Any:
    """Host arrays on devices; each process gives the parts of its own.

    Args:
      arrays: a tree of them, the same on all processes. `device_put` would compare
        each by a collective of its own.
      layout: of them all.
    """
    if layout.is_fully_addressable:
        return jax.device_put(arrays, layout)
    return jax.tree.map(lambda array: _placed(array, layout), arrays)


def _placed(array: Any, layout: Sharding) -> jax.Array:
    parts = layout.addressable_devices_indices_map(array.shape)
    # `make_array_from_callback` would be a transfer that nobody asked for.
    placed = jax.device_put([array[part or ()] for part in parts.values()], [*parts])
    return jax.make_array_from_single_device_arrays(array.shape, layout, placed)


def check_rows(batch: Any, mesh: Mesh, *, microbatches: int = 1) -> None:
    """Sees to it that every device gets equally many rows of each microbatch.

    Raises:
      ConfigError: the rows of the batch do not divide, or arrays differ in theirs.
    """
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
    if len(lengths) != 1 or () in lengths:
        raise ConfigError(
            "Expected a batch of arrays with as many rows each, got arrays whose first "
            f"axes are {sorted(lengths)}."
        )
    ((rows,),) = lengths
    axes = {axis: mesh.shape[axis] for axis in _BATCH_AXES}
    devices = batch_parts(mesh)
    if not rows or rows % (devices * microbatches):
        raise ConfigError(
            f"Expected a batch whose rows divide by {devices * microbatches} = "
            f"{devices} devices ({axes}) × {microbatches} microbatches, got {rows} "
            "rows; change the rows of an optimizer step, the mesh or the microbatches."
        )


def init_sharded(
    mesh: Mesh,
    init: Callable[[jax.Array], Any],
    logical_axes: Any,
    key: jax.Array,
    rules: Rules = DEFAULT_RULES,
) -> Any:
    """`init(key)` with each shard made on its own device, never whole on one.

    Args:
      mesh: the device mesh.
      init: from a typed PRNG key to a tree of arrays.
      logical_axes: tree of the same structure with tuples of logical axis names.
      key: typed PRNG key.
      rules: the table.

    Raises:
      ConfigError: see `shardings`.
    """
    abstract = jax.eval_shape(init, key)
    layouts = shardings(mesh, logical_axes, abstract, rules)
    return jax.jit(init, out_shardings=layouts)(key)
