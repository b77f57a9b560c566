"""One token of each row, drawn from its logits with its own key."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, Key

from fdjax.sampling.config import SamplingConfig
from fdjax.sampling.logits import keep_min_p, keep_top_k, keep_top_p

__all__ = ["Drawn", "draw"]

_GROUP = 128
"""Most tokens of a group, a power of two; about √V for vocabularies of today."""


class Drawn(NamedTuple):
    """A token of each row and what is known about it; arrays of NumPy on the host."""

    token: Int32[Array, "*batch"]
    logprob: Float32[Array, "*batch"]
    """Nats, under the policy at τ: of the whole vocabulary."""
    behaviour: Float32[Array, "*batch"]
    """Nats, under what it was drawn from."""
    entropy: Float32[Array, "*batch"]
    """Nats, of the policy at τ."""


def draw(
    keys: Key[Array, " B"],
    logits: Float32[Array, "B V"],
    temperature: Float32[Array, " B"],
    config: SamplingConfig,
) -> Drawn:
    """A token of what is left of each row's distribution after all cuts.

    Args:
      keys: typed, of each row.
      logits: of the model.
      temperature: τ of each row, positive.
      config: the cuts.
    """
    # As `ops.scale_logits` has it, which takes one temperature for all.
    largest = logits.max(axis=-1, keepdims=True)
    whole = jax.nn.log_softmax((logits - largest) / temperature[:, None], axis=-1)
    terms = jnp.where(whole > -jnp.inf, jnp.exp(whole) * whole, 0.0)
    entropy = -jnp.sum(terms, axis=-1)
    kept = whole
    if config.top_k:
        kept = keep_top_k(kept, config.top_k)
    if config.top_p < 1.0:
        kept = keep_top_p(kept, config.top_p)
    if config.min_p > 0.0:
        kept = keep_min_p(kept, config.min_p)
    token = _choose(keys, kept)
    logprob = jnp.take_along_axis(whole, token[:, None], axis=-1)[:, 0]
    behaviour = logprob
    if kept is not whole:
        behaviour = logprob - jax.nn.logsumexp(kept, axis=-1)
    return Drawn(token, logprob, behaviour, entropy)


def _choose(
    keys: Key[Array, " B"], logprobs: Float32[Array, "B V"]
) -> Int32[Array, " B"]:
    """The row's maximum of log-probabilities and Gumbel noise, in two steps.

    First a group of tokens by the groups' log-probabilities, then a token of it. That
    is the same distribution from a few hundred random numbers in place of V, most of
    the cost. Noise of the row's key alone, and maxima: two ways to compute the logits,
    which round differently, give another token only where the two best are that close.
    (One number looked up among cumulated probabilities would not do: the rounding error
    of their sum is no smaller than a rare token's share.)

    Args:
      keys: one a row.
      logprobs: of any sum; -inf is never drawn.
    """
    # Tokens g, g + count, g + 2 count and so on are group g: as many as V divides by,
    # so that nothing is filled up.
    size = logprobs.shape[-1]
    deep = math.gcd(size, _GROUP)
    groups = logprobs.reshape(len(logprobs), deep, -1)
    count = groups.shape[-1]
    noise = jax.vmap(partial(jax.random.gumbel, shape=(count + deep,)))(keys)
    group = _argmax(jnp.log(jnp.exp(groups).sum(axis=1)) + noise[:, :count])
    tokens = jnp.take_along_axis(groups, group[:, None, None], axis=2)[:, :, 0]
    return _argmax(tokens + noise[:, count:]) * count + group


def _argmax(scores: Float32[Array, "B V"]) -> Int32[Array, " B"]:
    """First index of each row's maximum, from two plain reductions.

    XLA's CPU compiler does not vectorise the paired reduction of `jnp.argmax`.
    """
    size = scores.shape[-1]
    index = jnp.arange(size, dtype=jnp.int32)[None]
    best = scores == scores.max(axis=-1, keepdims=True)
    # A row of NaN has no best; the last token stands in, its log-probability is NaN.
    return jnp.min(jnp.where(best, index, size - 1), axis=-1)
