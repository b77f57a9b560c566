"""Norm and feed-forward layer (Flax NNX modules)."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from fdjax.model.config import ModelConfig
from fdjax.model.lora import Adapted

__all__ = ["RMSNorm", "SwiGLU", "dense", "fan_in_normal", "read"]


def fan_in_normal(
    key: jax.Array, shape: tuple[int, ...], fan_in: int, gain: float = 1.0
) -> Float[Array, "..."]:
    """Normal values of variance gain²/fan_in, float32."""
    return jax.random.normal(key, shape, jnp.float32) * (gain * fan_in**-0.5)


def read(param: nnx.Param | None) -> Any:
    """The array of a parameter, or what stands in its place; None where it lacks."""
    return None if param is None else param.get_value()


def dense(
    x: Float[Array, "*batch_inputs"],
    weight: Float[Array, "*inputs_outputs"] | Adapted,
    bias: Float[Array, "*outputs"] | None = None,
    inputs: int = 1,
) -> Float[Array, "*batch_outputs"]:
    """Product of x and weight over the last `inputs` axes of x and the first of weight.

    Computed as one product of matrices: with the batch axes left apart, XLA's CPU
    compiler transposes the activations for each weight gradient, twice as slow.

    Args:
      x: activations.
      weight: parameters, cast to the type of `x`; adapters add their own product.
      bias: added to the product, cast likewise.
      inputs: axes that are summed over.
    """
    if isinstance(weight, Adapted):
        adapter = weight.adapter
        change = dense(dense(x, adapter.a, inputs=inputs), adapter.b)
        return dense(x, weight.weight, bias, inputs) + adapter.scale * change
    batch, outputs = x.shape[: x.ndim - inputs], weight.shape[inputs:]
    size = math.prod(weight.shape[:inputs])
    rows = x.reshape(math.prod(batch), size)
    matrix = weight.astype(x.dtype).reshape(size, math.prod(outputs))
    product = rows @ matrix
    if bias is not None:
        product += bias.astype(x.dtype).reshape(1, -1)
    return product.reshape(*batch, *outputs)


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
        scale = self.scale[...].astype(jnp.float32)
        scale = jnp.expand_dims(scale, range(x.ndim - 1))
        return (normed * scale).astype(x.dtype)


class SwiGLU(nnx.Module):
    """(silu(x W_gate) ⊙ x W_up) W_down (arXiv:2002.05202), perhaps with biases."""

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

        def bias(size: int, axis: str) -> nnx.Param | None:
            if not config.mlp_bias:
                return None
            return nnx.Param(jnp.zeros((size,), jnp.float32), axes=(axis,))

        self.gate_bias, self.up_bias = bias(inner, "mlp"), bias(inner, "mlp")
        self.down_bias = bias(width, "embed")

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Feeds each position forward."""
        rows = x.reshape(-1, x.shape[-1])
        gate = dense(rows, read(self.gate), read(self.gate_bias))
        inner = jax.nn.silu(gate) * dense(rows, read(self.up), read(self.up_bias))
        inner = checkpoint_name(inner, "inner")
        out = dense(inner, read(self.down), read(self.down_bias))
        return checkpoint_name(out, "mlp").reshape(x.shape)
