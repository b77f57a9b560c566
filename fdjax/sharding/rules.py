"""One table from logical axis to mesh axes, and the layouts that follow from it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fdjax.errors import ConfigError

__all__ = ["DEFAULT_RULES", "Rules", "batch_sharding", "init_sharded", "shardings"]

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
}
"""Parameters are cut over fsdp along the width, over tensor along everything wide."""

_BATCH_AXES = ("data", "fsdp")


def _is_axes(node: Any) -> bool:
    return isinstance(node, tuple)


def shardings(mesh: Mesh, logical_axes: Any, rules: Rules = DEFAULT_RULES) -> Any:
    """A NamedSharding for each leaf of a tree of logical axis names.

    Args:
      mesh: the device mesh.
      logical_axes: tree whose leaves are tuples of logical axis names.
      rules: the table.

    Raises:
      ConfigError: a name is not in the table, its mesh axis not in the mesh, or two
        axes of one array are cut over the same mesh axis.
    """

    def layout(axes: tuple[str, ...]) -> NamedSharding:
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
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(layout, logical_axes, is_leaf=_is_axes)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Layout of arrays whose first axis is the global batch: cut over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(_BATCH_AXES))


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
      ConfigError: an axis cannot be cut evenly, or see `shardings`.
    """
    layouts = shardings(mesh, logical_axes, rules)
    abstract = jax.eval_shape(init, key)

    def check(path: Any, axes: tuple[str, ...], leaf: Any, layout: Any) -> None:
        try:
            layout.shard_shape(leaf.shape)
        except ValueError as error:
            raise ConfigError(
                f"expected each axis of {jax.tree_util.keystr(path)}, "
                f"{dict(zip(axes, leaf.shape, strict=True))}, to be divisible by its "
                f"part of the mesh {dict(mesh.shape)}, cut as {layout.spec}: change "
                "the model's sizes, the mesh, or the rule to None"
            ) from error

    jax.tree_util.tree_map_with_path(
        check, logical_axes, abstract, layouts, is_leaf=_is_axes
    )
    return jax.jit(init, out_shardings=layouts)(key)
