"""Values in nested dicts by their path of keys."""

from collections.abc import Mapping
from typing import Any

__all__ = ["find", "nested"]

Keys = tuple[str, ...]


def find(tree: Any, keys: Keys) -> Any:
    """What lies under a path of keys; None where nothing does."""
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree


def nested(keys: Keys, value: Any, tree: dict[str, Any] | None = None) -> Any:
    """`tree`, a new one by default, with a value put under a path of keys."""
    tree = {} if tree is None else tree
    node = tree
    for key in keys[:-1]:
        node = node.setdefault(key, {})
    node[keys[-1]] = value
    return tree
