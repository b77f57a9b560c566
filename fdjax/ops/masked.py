"""Selecting and summing under a boolean mask, so that padding cannot leak.

Values under the mask are replaced *before* any arithmetic: a NaN there changes
neither the value nor the gradient, which multiplying by the mask would not achieve.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from fdjax.errors import ConfigError
from fdjax.records import Mean

__all__ = [
    "divide_by_normalizer",
    "masked_mean",
    "masked_sum",
    "require_rows",
    "select",
    "sequence_mean_weights",
]


def select(
    values: Float[Array, "..."], mask: Bool[Array, "..."]
) -> Float32[Array, "..."]:
    """Values in float32 where the mask is True, 0 elsewhere.

    Args:
      values: any float type; its leading axes are those of the mask. A further axis,
        such as the vocabulary of logits, is kept or zeroed as a whole.
      mask: True contributes.

    Raises:
      ConfigError: the mask is not boolean or does not have the leading axes of the
        values. Shapes never broadcast here, not even from an axis of length 1.
    """
    if mask.dtype != jnp.bool_:
        raise ConfigError(
            f"expected a boolean mask, got {mask.dtype}: compare it first, `mask > 0`"
        )
    if values.shape[: mask.ndim] != mask.shape:
        raise ConfigError(
            f"expected a mask of shape {values.shape[: mask.ndim]} for values of shape "
            f"{values.shape}, got {mask.shape}: one mask entry for each token"
        )
    trailing = (1,) * (values.ndim - mask.ndim)
    return jnp.where(
        mask.reshape(mask.shape + trailing), values.astype(jnp.float32), 0.0
    )


def require_rows(name: str, values: Array, mask: Array) -> None:
    """Check that there is one value for each row of the mask.

    Args:
      name: of the argument, for the message.
      values: should be [B].
      mask: [B, T].

    Raises:
      ConfigError: the shape differs, also where NumPy rules would broadcast it.
    """
    if values.shape != mask.shape[:1]:
        raise ConfigError(
            f"expected {name} of shape {mask.shape[:1]}, one for each row of the mask, "
            f"got {values.shape}: flatten groups with `reshape(-1)`, drop no member"
        )


def masked_sum(
    values: Float[Array, "*axes"], mask: Bool[Array, "*axes"]
) -> Float32[Array, ""]:
    """Sum of the values where the mask is True, in float32; 0 for an empty mask."""
    return jnp.sum(select(values, mask))


def masked_mean(values: Float[Array, "*axes"], mask: Bool[Array, "*axes"]) -> Mean:
    """Mean of the values where the mask is True, as its two sums.

    Nothing is divided, so an empty mask is harmless and shards simply add.
    """
    return Mean(masked_sum(values, mask), jnp.sum(mask, dtype=jnp.float32))


def divide_by_normalizer(
    total: Float[Array, ""], normalizer: Float[Array, ""]
) -> Float32[Array, ""]:
    """A loss from its sum: total / normalizer, and 0 where the normalizer is 0.

    A normalizer of 0 means that no sample of the global batch could be scored (each
    verifier crashed, say). Such a step must do nothing, not write NaN to the weights.
    """
    # A NaN is no 0: it must reach the loss, where it is seen.
    scored = ~(normalizer <= 0)
    divisor = jnp.where(scored, normalizer, 1.0).astype(jnp.float32)
    return jnp.where(scored, total, 0.0) / divisor


def sequence_mean_weights(mask: Bool[Array, "B T"]) -> Float32[Array, "B T"]:
    """Token weights that turn a sum over tokens into a sum of per-sequence means.

    w_bt = m_bt / Σ_t m_bt. Use as the `weights` of `grpo_loss` with the number of
    sequences that have a scored token as the normalizer (arXiv:2402.03300, eq. 3).
    """
    length = jnp.sum(mask, axis=-1, keepdims=True, dtype=jnp.float32)
    return jnp.where(mask, 1.0 / jnp.maximum(length, 1.0), 0.0)
