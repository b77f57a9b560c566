"""Sums over the bits of arrays, by which damage is found.

Orbax keeps none of its chunks. zstd stores as they are weights that do not compress,
and notices nothing when a bit of them flips.
"""

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["bit_sums"]


def bit_sums(tree: Any) -> dict[str, int]:
    """Path of each array to the sum of its words, modulo 2³².

    A changed word changes the sum. Integers add up in any order to the same, so that
    the sum is independent of how the array is spread over devices.

    Args:
      tree: arrays of numbers, no typed keys.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    # Each by itself: a CPU holds the words of all that one program sums. And one after
    # the other: collectives of many programs at once wait for each other there.
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): int(
            jax.device_get(_sum(leaf))
        )
        for path, leaf in leaves
    }


@jax.jit
def _sum(leaf: jax.Array) -> jax.Array:
    return jnp.sum(_words(leaf), dtype=jnp.uint32)


def _words(leaf: jax.Array) -> jax.Array:
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    # Eight bytes become two words of four.
    bits = min(8 * leaf.dtype.itemsize, 32)
    words = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{bits}"))
    return words.astype(jnp.uint32)
