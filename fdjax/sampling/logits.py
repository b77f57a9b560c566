"""From logits to the logits of the distribution that is sampled from."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["keep_top_k", "keep_top_p", "scale_temperature"]


def scale_temperature(
    logits: Float[Array, "*batch V"], temperature: float
) -> Float[Array, "*batch V"]:
    """Logits / temperature; a positive temperature near 0 is greedy."""
    return logits / temperature


def keep_top_k(logits: Float[Array, "*batch V"], k: int) -> Float[Array, "*batch V"]:
    """-inf on all but the k largest logits, and those that tie with the k-th.

    Args:
      logits: any scale.
      k: at least 1; the vocabulary size or more keeps everything.
    """
    kept, _ = jax.lax.top_k(logits, min(k, logits.shape[-1]))
    return jnp.where(logits >= kept[..., -1:], logits, -jnp.inf)


def keep_top_p(logits: Float[Array, "*batch V"], p: float) -> Float[Array, "*batch V"]:
    """-inf outside the nucleus (arXiv:1904.09751, eq. 3).

    The nucleus is the smallest set of most probable tokens whose probabilities sum to
    at least p, and those that tie with its last one. It is never empty.

    Args:
      logits: of the distribution, -inf allowed.
      p: in (0, 1].
    """
    ordered = jnp.sort(logits, axis=-1, descending=True)
    probabilities = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    last = jnp.min(jnp.where(before < p, ordered, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= last, logits, -jnp.inf)
