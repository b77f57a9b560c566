"""Supervised fine-tuning: masked cross-entropy on given tokens."""

from jaxtyping import Array, Bool, Float, Float32

from fdjax.ops import divide_by_normalizer, masked_mean, masked_sum
from fdjax.records import Metrics

__all__ = ["sft_loss"]


def sft_loss(
    logprobs: Float[Array, "B T"],
    *,
    mask: Bool[Array, "B T"],
    normalizer: Float[Array, ""],
) -> tuple[Float32[Array, ""], Metrics]:
    """Negative log-likelihood of the scored tokens.

    −1/Z Σ_bt m_bt log p_bt

    Args:
      logprobs: log p(token) in nats (`ops.token_logprobs`); carries the gradient.
      mask: True for tokens to learn; prompt and padding are False.
      normalizer: Z, scored tokens in the global batch; where 0, so is the loss.

    Returns:
      The loss in nats per token, and metrics: sft/cross_entropy (nats per token).
    """
    loss = divide_by_normalizer(-masked_sum(logprobs, mask), normalizer)
    return loss, {"sft/cross_entropy": masked_mean(-logprobs, mask)}
