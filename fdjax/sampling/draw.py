"""One token of each row, drawn from its logits with its own key."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, Key

from fdjax.sampling.config import SamplingConfig
from fdjax.sampling.logits import keep_min_p, keep_top_k, keep_top_p

__all__ = ["Drawn", "draw"]


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
    """The row's maximum of log-probabilities and Gumbel noise, after all cuts.

    Noise of the row's key alone, and a maximum: two ways to compute the logits, which
    round differently, give another token only where the two best are that close.

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
    noise = jax.vmap(partial(jax.random.gumbel, shape=logits.shape[-1:]))(keys)
    token = _argmax(kept + noise)
    logprob = jnp.take_along_axis(whole, token[:, None], axis=-1)[:, 0]
    behaviour = logprob
    if kept is not whole:
        behaviour = logprob - jax.nn.logsumexp(kept, axis=-1)
    return Drawn(token, logprob, behaviour, entropy)


def _argmax(scores: Float32[Array, "B V"]) -> Int32[Array, " B"]:
    """First index of each row's maximum, from two plain reductions.

    XLA's CPU compiler does not vectorise the paired reduction of `jnp.argmax`.
    """
    size = scores.shape[-1]
    index = jnp.arange(size, dtype=jnp.int32)[None]
    best = scores == scores.max(axis=-1, keepdims=True)
    # A row of NaN has no best; the last token stands in, its log-probability is NaN.
    return jnp.min(jnp.where(best, index, size - 1), axis=-1)
