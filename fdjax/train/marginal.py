"""The mean next-token distribution: how much the policy says over all positions."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from fdjax.model import Model
from fdjax.ops import Chunking, chunked_sum, scale_logits

__all__ = ["entropy_of", "summed_distribution"]


def summed_distribution(
    model: Model,
    params: Any,
    hidden: Float[Array, "B T D"],
    mask: Bool[Array, "B T"],
    *,
    temperature: float,
) -> Float32[Array, " V"]:
    """Σ_bt m_bt p(· | y_<t): divided by the positions, the marginal distribution.

    Its entropy falls where a policy says the same everywhere, also while each of its
    distributions stays wide.

    Args:
      model: the policy.
      params: its parameters.
      hidden: last hidden states that predict the tokens.
      mask: positions that count.
      temperature: of the distributions.
    """

    def chunk(logits: Array, rows: Any, shared: Any) -> tuple[Array, Array]:
        del shared
        likely = jax.nn.softmax(scale_logits(logits, temperature))
        summed = jnp.where(rows["mask"][:, None], likely, 0).sum(axis=0)
        return jnp.zeros((), jnp.float32), summed

    _, summed = chunked_sum(
        chunk,
        hidden,
        model.output_embeddings(params),
        mask=mask,
        rows={},
        chunking=Chunking(mesh=model.mesh),
    )
    return summed


def entropy_of(summed: Float32[Array, " V"]) -> Float32[Array, ""]:
    """Entropy of a distribution that is known up to a factor, nats.

    >>> round(float(entropy_of(jnp.array([2.0, 2.0, 0.0]))), 4)
    0.6931
    """
    share = summed / jnp.maximum(summed.sum(), jnp.finfo(jnp.float32).tiny)
    return jax.scipy.special.entr(share).sum()
