"""The losses from hidden states and heads, which never hold a batch's logits.

The same functions of the same arguments as in the other modules of `fdjax.losses`,
called on a chunk of rows at a time; their docstrings have the formulas.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from fdjax.errors import ConfigError
from fdjax.losses.feedback_distillation import feedback_distillation_loss
from fdjax.ops import (
    BY_RULE,
    Chunking,
    Divergence,
    chunked_sum,
    entropy,
    forward_kl,
    head_logits,
    masked_mean,
    require_rows,
    token_logprobs,
)
from fdjax.records import Metrics, union

__all__ = ["feedback_distillation_loss_from_hidden", "token_loss_from_hidden"]


def feedback_distillation_loss_from_hidden(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    *,
    teacher_hidden: Float[Array, "B T E"],
    teacher_head: Float[Array, "V E"],
    mask: Bool[Array, "B T"],
    normalizer: Float[Array, ""],
    divergence: Divergence = forward_kl,
    temperature: float = 1.0,
    divergence_clip: float | None = None,
    weights: Float[Array, "B T"] | None = None,
    soft_cap: float | None = None,
    chunking: Chunking = BY_RULE,
) -> tuple[Float32[Array, ""], Metrics]:
    """`feedback_distillation_loss` without its logits.

    Args:
      hidden: the student's last hidden states; carry the gradient.
      head: the student's output embeddings; carry the gradient.
      teacher_hidden: the teacher's, aligned by y; the gradient stops here.
      teacher_head: the teacher's output embeddings.
      mask: True for tokens the student sampled in samples that have feedback.
      normalizer: Z, scored tokens in the global batch.
      divergence: `(student_logits, teacher_logits) -> [..]`.
      temperature: τ at which y was sampled.
      divergence_clip: nats, above which a token has no gradient.
      weights: per-token factors without gradient.
      soft_cap: c of c tanh(logits / c), for both.
      chunking: rows of a chunk, and devices.

    Returns:
      What `feedback_distillation_loss` returns.

    Raises:
      ConfigError: the temperature or the clip is not positive, or shapes do not agree.
    """
    if head.shape[0] != teacher_head.shape[0]:
        raise ConfigError(
            f"expected a teacher of the student's vocabulary, {head.shape[0]} tokens, "
            f"got {teacher_head.shape[0]}"
        )
    rows = {"teacher_hidden": teacher_hidden}
    if weights is not None:
        rows["weights"] = weights
    shared = (teacher_head.astype(teacher_hidden.dtype), normalizer)

    def chunk(logits: Any, rows: Any, shared: Any) -> tuple[Any, Metrics]:
        teacher_head, normalizer = shared
        mask = rows["mask"]
        informed = jnp.where(mask[:, None], rows["teacher_hidden"], 0)
        informed_logits = head_logits(informed, teacher_head, soft_cap=soft_cap)
        weights = rows.get("weights")
        return feedback_distillation_loss(
            logits[:, None],
            teacher_logits=informed_logits[:, None],
            mask=mask[:, None],
            normalizer=normalizer,
            divergence=divergence,
            temperature=temperature,
            divergence_clip=divergence_clip,
            weights=None if weights is None else weights[:, None],
        )

    return chunked_sum(
        chunk,
        hidden,
        head,
        mask=mask,
        rows=rows,
        shared=shared,
        soft_cap=soft_cap,
        chunking=chunking,
    )


def token_loss_from_hidden(
    loss: Callable[..., tuple[Array, Metrics]],
    hidden: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    tokens: Int[Array, "B T"],
    *,
    mask: Bool[Array, "B T"],
    normalizer: Float[Array, ""],
    temperature: float = 1.0,
    soft_cap: float | None = None,
    chunking: Chunking = BY_RULE,
    **arrays: Float[Array, "B ..."],
) -> tuple[Float32[Array, ""], Metrics]:
    """A loss of the tokens' log-probabilities, without the logits behind them.

    The logits are computed once: a quarter less work than by `ops.chunked_logprobs`,
    which losses need that look at whole sequences (`gspo_loss`).

    Args:
      loss: a sum over tokens, each by itself: `grpo_loss`, `dual_clip_grpo_loss`,
        `cispo_loss`, `sampled_distillation_loss`, `sft_loss`, or one of these with
        `functools.partial`.
      hidden: last hidden states; carry the gradient.
      head: output embeddings; carry the gradient.
      tokens: ids below V.
      mask: True for scored tokens.
      normalizer: Z of the loss.
      temperature: τ at which the tokens were sampled.
      soft_cap: c of c tanh(logits / c).
      chunking: rows of a chunk, and devices.
      **arrays: further arguments of the loss, [B] such as advantages or [B, T] such as
        old_logprobs.

    Returns:
      What `loss` returns, and the metric train/entropy (nats at τ, mean over scored
      tokens).

    Raises:
      ConfigError: the temperature is not positive, or shapes do not agree.
    """
    flat = {name for name, array in arrays.items() if array.ndim == 1}
    for name in flat:
        require_rows(name, arrays[name], mask)
    rows = {
        name: jnp.broadcast_to(array[:, None], mask.shape) if name in flat else array
        for name, array in arrays.items()
    }

    def chunk(logits: Any, rows: Any, normalizer: Any) -> tuple[Any, Metrics]:
        rows = {
            name: array if name in flat else array[:, None]
            for name, array in rows.items()
        }
        logits = logits[:, None]
        total, metrics = loss(
            token_logprobs(logits, rows.pop("tokens"), temperature=temperature),
            normalizer=normalizer,
            **rows,
        )
        spread = entropy(jax.lax.stop_gradient(logits), temperature=temperature)
        return total, union(
            metrics, {"train/entropy": masked_mean(spread, rows["mask"])}
        )

    return chunked_sum(
        chunk,
        hidden,
        head,
        mask=mask,
        rows={**rows, "tokens": tokens},
        shared=normalizer,
        soft_cap=soft_cap,
        chunking=chunking,
    )
