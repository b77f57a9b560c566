"""Which weights a sampler has a copy of."""

import weakref
from typing import Any

import jax

__all__ = ["Published"]


class Published:
    """Remembers arrays, and does not keep them alive."""

    def __init__(self) -> None:
        """None yet."""
        self._structure: Any = None
        self._leaves: list[weakref.ref[jax.Array]] = []

    def has(self, params: Any) -> bool:
        """Whether these arrays were noted last, in this tree; equal ones are others."""
        leaves, structure = jax.tree.flatten(params)
        return (
            self._structure is not None
            and structure == self._structure
            and all(
                noted() is leaf
                for noted, leaf in zip(self._leaves, leaves, strict=True)
            )
        )

    def note(self, params: Any) -> None:
        """From now on it has these."""
        leaves, self._structure = jax.tree.flatten(params)
        self._leaves = [weakref.ref(leaf) for leaf in leaves]

    def forget(self) -> None:
        """It has none, or not all of any."""
        self._structure, self._leaves = None, []
