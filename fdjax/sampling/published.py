"""Which weights a sampler has a copy of."""

import weakref
from typing import Any

import jax

__all__ = ["Published"]


class Published:
    """Remembers arrays, and does not keep them alive."""

    def __init__(self) -> None:
        """None yet."""
        self._leaves: list[weakref.ref[jax.Array]] | None = None

    def has(self, params: Any) -> bool:
        """Whether these arrays were noted last; equal ones are others."""
        leaves = jax.tree.leaves(params)
        return (
            self._leaves is not None
            and len(leaves) == len(self._leaves)
            and all(
                noted() is leaf
                for noted, leaf in zip(self._leaves, leaves, strict=True)
            )
        )

    def note(self, params: Any) -> None:
        """From now on it has these."""
        self._leaves = [weakref.ref(leaf) for leaf in jax.tree.leaves(params)]

    def forget(self) -> None:
        """It has none, or not all of any."""
        self._leaves = None
