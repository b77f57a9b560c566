"""From logits to the logits of the distribution that is sampled from."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

from fdjax.ranges import Number, Whole, require

__all__ = ["MIN_P", "TOP_P", "keep_min_p", "keep_top_k", "keep_top_p"]

TOP_P = Number(above=0, most=1)
"""Probability mass of a nucleus; 1 is all."""
MIN_P = Number(least=0, most=1)
"""Share of the most probable token's probability; 0 cuts nothing."""


def keep_top_k(logits: Float[Array, "*batch V"], k: int) -> Float[Array, "*batch V"]:
    """-inf on all but the k largest logits, and those that tie with the k-th.

    Args:
      logits: any scale, -inf allowed; NaN is never kept.
      k: at least 1; the vocabulary size or more keeps everything.

    Raises:
      ConfigError: k is below 1.
    """
    require("k", k, Whole(1))
    others = logits.shape[-1] - k
    if others <= 0:
        return logits
    values = logits.astype(jnp.float32)

    def reaches(threshold: Array) -> Array:
        """More than V - k tokens lie at the threshold or below: fewer than k above."""
        return jnp.sum(values <= threshold, axis=-1, keepdims=True) > others

    return jnp.where(values >= _least_value(values, reaches), logits, -jnp.inf)


def keep_top_p(logits: Float[Array, "*batch V"], p: float) -> Float[Array, "*batch V"]:
    """-inf outside the nucleus (arXiv:1904.09751, eq. 3).

    The nucleus is the smallest set of most probable tokens whose probabilities sum to
    at least p, and those that tie with its last one. It is never empty.

    A token belongs to it if the tokens above hold less than p. What is summed is the
    rest, the tokens of its logit or below, which must hold more than 1 - p: for p near
    1 that sum is small, and so is its rounding error.

    Args:
      logits: of the distribution, -inf allowed; NaN is never kept.
      p: in (0, 1]; 1 keeps everything.

    Raises:
      ConfigError: p is not in (0, 1].
    """
    require("p", p, TOP_P)
    if p == 1:
        return logits
    values = logits.astype(jnp.float32)
    weights = jnp.exp(values - values.max(axis=-1, keepdims=True))
    outside = (1 - p) * weights.sum(axis=-1, keepdims=True)

    def reaches(threshold: Array) -> Array:
        """The tokens at the threshold or below hold more than 1 - p."""
        below = jnp.where(values <= threshold, weights, 0.0)
        return below.sum(axis=-1, keepdims=True) > outside

    return jnp.where(values >= _least_value(values, reaches), logits, -jnp.inf)


def keep_min_p(logits: Float[Array, "*batch V"], p: float) -> Float[Array, "*batch V"]:
    """-inf on tokens less probable than p times the most probable (arXiv:2407.01082).

    Args:
      logits: of the distribution, -inf allowed; NaN is never kept.
      p: from 0, which keeps everything, to 1, which keeps the most probable.

    Raises:
      ConfigError: p is not in [0, 1].
    """
    require("p", p, MIN_P)
    if p == 0:
        return logits
    values = logits.astype(jnp.float32)
    least = values.max(axis=-1, keepdims=True) + math.log(p)
    return jnp.where(values >= least, logits, -jnp.inf)


def _least_value(
    values: Float32[Array, "*batch V"],
    reaches: Callable[[Float32[Array, "*batch 1"]], Bool[Array, "*batch 1"]],
) -> Float32[Array, "*batch 1"]:
    """Each row's least threshold that `reaches`; the row's maximum if none below does.

    `reaches` is False up to some threshold and True from it on: a sum over the values
    up to the threshold is, rounded in whatever order, as long as it is the same each
    time. So floats are bisected, by the integers that order them as their bits do: 32
    passes over the row, each a reduction. (Ending earlier, as soon as all rows have,
    would save a fifth of them and make the devices of a mesh wait for one another.)
    """
    low, high = (
        _ordinal(jax.lax.bitcast_convert_type(end, jnp.int32))
        for end in (
            values.min(axis=-1, keepdims=True),
            values.max(axis=-1, keepdims=True),
        )
    )

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        # The mean, rounded down, without the overflow of a sum.
        middle = (low & high) + ((low ^ high) >> 1)
        enough = reaches(_float(middle))
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    _, least = jax.lax.fori_loop(0, 32, halve, (low, high))
    return _float(least)


def _ordinal(bits: Int32[Array, "*axes"]) -> Int32[Array, "*axes"]:
    """From a float's bits to an integer in the floats' order, and back."""
    return bits ^ ((bits >> 31) & 0x7FFF_FFFF)


def _float(ordinal: Int32[Array, "*axes"]) -> Float32[Array, "*axes"]:
    return jax.lax.bitcast_convert_type(_ordinal(ordinal), jnp.float32)
