"""Norm, rotary embedding and feed-forward layer (Flax NNX modules)."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from fdjax.model.config import ModelConfig

__all__ = ["RMSNorm", "SwiGLU", "dense", "fan_in_normal", "rope_angles", "rotate"]


def fan_in_normal(
    key: jax.Array, shape: tuple[int, ...], fan_in: int, gain: float = 1.0
) -> Float[Array, "..."]:
    """Normal values of variance gain²/fan_in, float32."""
    return jax.random.normal(key, shape, jnp.float32) * (gain * fan_in**-0.5)


def dense(
    x: Float[Array, "*batch_inputs"],
    weight: Float[Array, "*inputs_outputs"],
    inputs: int = 1,
) -> Float[Array, "*batch_outputs"]:
    """Product of x and weight over the last `inputs` axes of x and the first of weight.

    Computed as one product of matrices: with the batch axes left apart, XLA's CPU
    compiler transposes the activations for each weight gradient, twice as slow.

    Args:
      x: activations.
      weight: float32 parameters, cast to the type of `x`.
      inputs: axes that are summed over.
    """
    batch, outputs = x.shape[: x.ndim - inputs], weight.shape[inputs:]
    size = math.prod(weight.shape[:inputs])
    rows = x.reshape(math.prod(batch), size)
    matrix = weight.astype(x.dtype).reshape(size, math.prod(outputs))
    return (rows @ matrix).reshape(*batch, *outputs)


class RMSNorm(nnx.Module):
    """x / √(mean x² + ε) · scale over the last axis, in float32 (arXiv:1910.07467)."""

    def __init__(self, size: int, axis: str, eps: float):
        self.scale = nnx.Param(jnp.ones((size,), jnp.float32), axes=(axis,))
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Normalises; the result has the type of `x`."""
        wide = x.astype(jnp.float32)
        square = jnp.mean(wide * wide, axis=-1, keepdims=True)
        normed = wide * jax.lax.rsqrt(square + self.eps)
        scale = jnp.expand_dims(self.scale[...], range(x.ndim - 1))
        return (normed * scale).astype(x.dtype)


class SwiGLU(nnx.Module):
    """(silu(x W_gate) ⊙ x W_up) W_down (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        width, inner = config.hidden_size, config.intermediate_size
        self.gate = nnx.Param(
            fan_in_normal(rngs.params(), (width, inner), width), axes=("embed", "mlp")
        )
        self.up = nnx.Param(
            fan_in_normal(rngs.params(), (width, inner), width), axes=("embed", "mlp")
        )
        self.down = nnx.Param(
            fan_in_normal(
                rngs.params(), (inner, width), inner, (2 * config.num_layers) ** -0.5
            ),
            axes=("mlp", "embed"),
        )

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Feeds each position forward."""
        rows = x.reshape(-1, x.shape[-1])
        inner = jax.nn.silu(dense(rows, self.gate[...])) * dense(rows, self.up[...])
        return dense(inner, self.down[...]).reshape(x.shape)


def rope_angles(
    positions: Int[Array, "B T"], *, head_dim: int, theta: float
) -> tuple[Float[Array, "B T half"], Float[Array, "B T half"]]:
    """Cosine and sine of position · theta^(−2i/H), float32 (arXiv:2104.09864)."""
    exponents = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    frequencies = theta**-exponents
    angles = positions.astype(jnp.float32)[..., None] * frequencies[None, None]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "B T N H"],
    cos: Float[Array, "B T half"],
    sin: Float[Array, "B T half"],
) -> Float[Array, "B T N H"]:
    """Turns the pairs (x_i, x_{i + H/2}) by their angles (Hugging Face pairing)."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    turned = jnp.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    )
    return turned.astype(x.dtype)
