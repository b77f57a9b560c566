"""Grouped-query attention: projections, the causal pass, one step against a cache."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from fdjax.model.config import ModelConfig
from fdjax.model.layers import RMSNorm, dense, fan_in_normal, read
from fdjax.model.rope import rotate

__all__ = ["Attention", "causal_attention"]

_MASKED = -1e30
"""Score of a pair that may not attend; finite, so that no row becomes NaN."""

_WHOLE = 2_048
"""Longest sequence whose scores are computed at once, tokens."""

_BLOCK = 512
"""Queries of a longer sequence whose scores are in memory together."""

Angles = tuple[Float[Array, "B T half"], Float[Array, "B T half"]]


class Attention(nnx.Module):
    """Projections around attention, with RoPE and optional QK norm and biases."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        width, size = config.hidden_size, config.head_dim
        heads, kv_heads = config.num_heads, config.num_kv_heads

        def projection(count: int, axis: str) -> nnx.Param:
            return nnx.Param(
                fan_in_normal(rngs.params(), (width, count, size), width),
                axes=("embed", axis, "head_dim"),
            )

        self.query = projection(heads, "heads")
        self.key = projection(kv_heads, "kv_heads")
        self.value = projection(kv_heads, "kv_heads")
        self.output = nnx.Param(
            fan_in_normal(
                rngs.params(),
                (heads, size, width),
                heads * size,
                (2 * config.num_layers) ** -0.5,
            ),
            axes=("heads", "head_dim", "embed"),
        )

        def bias(count: int, axis: str) -> nnx.Param:
            return nnx.Param(
                jnp.zeros((count, size), jnp.float32), axes=(axis, "head_dim")
            )

        biased = config.attention_bias
        self.query_bias = bias(heads, "heads") if biased else None
        self.key_bias = bias(kv_heads, "kv_heads") if biased else None
        self.value_bias = bias(kv_heads, "kv_heads") if biased else None
        self.output_bias = (
            nnx.Param(jnp.zeros((width,), jnp.float32), axes=("embed",))
            if config.output_bias
            else None
        )

        def norm() -> RMSNorm | None:
            if not config.qk_norm:
                return None
            return RMSNorm(size, "head_dim", config.rms_norm_eps)

        self.query_norm, self.key_norm = norm(), norm()

    def project(
        self, x: Float[Array, "B T D"], angles: Angles
    ) -> tuple[
        Float[Array, "B T N H"], Float[Array, "B T M H"], Float[Array, "B T M H"]
    ]:
        """Queries, keys and values; the first two normed and turned."""
        query = dense(x, read(self.query), read(self.query_bias))
        key = dense(x, read(self.key), read(self.key_bias))
        value = dense(x, read(self.value), read(self.value_bias))
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        return (
            checkpoint_name(rotate(query, *angles), "query"),
            checkpoint_name(rotate(key, *angles), "key"),
            checkpoint_name(value, "value"),
        )

    def mix(self, heads: Float[Array, "B T N H"]) -> Float[Array, "B T D"]:
        """Output projection."""
        heads = checkpoint_name(heads, "heads")
        mixed = dense(heads, read(self.output), read(self.output_bias), inputs=2)
        return checkpoint_name(mixed, "attention")


def causal_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T M H"],
    value: Float[Array, "B T M H"],
    *,
    segments: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """softmax(q kᵀ / √H) v over the tokens of the same segment up to each position.

    A position reads itself in any case, so that no softmax is empty. Softmax in
    float32. Long sequences are computed in blocks of queries that the backward pass
    recomputes, so that memory grows with T rather than T².

    Args:
      query: N query heads; query head n reads key/value head n // (N/M).
      key: M heads.
      value: M heads.
      segments: id of the sequence that a token belongs to; padding has an id of its
        own.
    """
    length = query.shape[1]
    if length <= _WHOLE:
        return _attend(query, key, value, segments, segments, jnp.int32(0))
    spare = -length % _BLOCK
    starts = jnp.arange(0, length + spare, _BLOCK, dtype=jnp.int32)

    def blocks(array: jax.Array) -> jax.Array:
        """[B, T, …] as [blocks, B, block, …], filled up with zeros."""
        widths = [(0, spare if axis == 1 else 0) for axis in range(array.ndim)]
        full = jnp.pad(array, widths)
        cut = full.reshape(full.shape[0], -1, _BLOCK, *full.shape[2:])
        return jnp.moveaxis(cut, 1, 0)

    @jax.checkpoint
    def block(inputs: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        some, own, start = inputs
        return _attend(some, key, value, own, segments, start)

    out = jax.lax.map(block, (blocks(query), blocks(segments), starts))
    whole = jnp.moveaxis(out, 0, 1).reshape(query.shape[0], -1, *query.shape[2:])
    return whole[:, :length]


def _attend(
    query: Float[Array, "B Q N H"],
    key: Float[Array, "B T M H"],
    value: Float[Array, "B T M H"],
    own: Int[Array, "B Q"],
    segments: Int[Array, "B T"],
    start: Int[Array, ""],
) -> Float[Array, "B Q N H"]:
    """Queries from position `start` on, of segments `own`, against all keys."""
    batch, length, heads, size = query.shape
    kv_heads = key.shape[2]
    scaled = query * size**-0.5
    scores = jnp.einsum(
        "btmrh,bsmh->bmrts",
        scaled.reshape(batch, length, kv_heads, heads // kv_heads, size),
        key,
        preferred_element_type=jnp.float32,
    )
    row = start + jnp.arange(length, dtype=jnp.int32)
    causal = jnp.arange(key.shape[1], dtype=jnp.int32)[None, :] <= row[:, None]
    mask = causal[None] & (own[:, :, None] == segments[:, None, :])
    scores = jnp.where(mask[:, None, None], scores, _MASKED)
    # Dividing by the sum last saves a pass over [T, T] forward and one backward.
    top = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - top)
    out = jnp.einsum(
        "bmrts,bsmh->bmrth",
        weights.astype(value.dtype),
        value,
        preferred_element_type=jnp.float32,
    )
    out = out / weights.sum(axis=-1)[..., None]
    return jnp.moveaxis(out, 3, 1).reshape(query.shape).astype(query.dtype)
