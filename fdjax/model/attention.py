"""Grouped-query attention: a causal pass, and one step against a cache."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from fdjax.model.config import ModelConfig
from fdjax.model.layers import RMSNorm, dense, fan_in_normal, rotate

__all__ = ["Attention", "causal_attention", "step_attention"]

_MASKED = -1e30
"""Score of a pair that may not attend; finite, so that no row becomes NaN."""

Angles = tuple[Float[Array, "B T half"], Float[Array, "B T half"]]


class Attention(nnx.Module):
    """Projections around attention, with RoPE and optional QK norm and bias."""

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
        if config.attention_bias:

            def bias(count: int, axis: str) -> nnx.Param:
                return nnx.Param(
                    jnp.zeros((count, size), jnp.float32), axes=(axis, "head_dim")
                )

            self.query_bias = bias(heads, "heads")
            self.key_bias = bias(kv_heads, "kv_heads")
            self.value_bias = bias(kv_heads, "kv_heads")
            self.output_bias = nnx.Param(
                jnp.zeros((width,), jnp.float32), axes=("embed",)
            )
        if config.qk_norm:
            self.query_norm = RMSNorm(size, "head_dim", config.rms_norm_eps)
            self.key_norm = RMSNorm(size, "head_dim", config.rms_norm_eps)
        self.config = config

    def project(
        self, x: Float[Array, "B T D"], angles: Angles
    ) -> tuple[
        Float[Array, "B T N H"], Float[Array, "B T M H"], Float[Array, "B T M H"]
    ]:
        """Queries, keys and values; the first two normed and turned."""
        query = dense(x, self.query[...])
        key = dense(x, self.key[...])
        value = dense(x, self.value[...])
        if self.config.attention_bias:
            query += self.query_bias[...].astype(x.dtype)[None, None]
            key += self.key_bias[...].astype(x.dtype)[None, None]
            value += self.value_bias[...].astype(x.dtype)[None, None]
        if self.config.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        return rotate(query, *angles), rotate(key, *angles), value

    def mix(self, heads: Float[Array, "B T N H"]) -> Float[Array, "B T D"]:
        """Output projection."""
        mixed = dense(heads, self.output[...], inputs=2)
        if self.config.attention_bias:
            mixed += self.output_bias[...].astype(heads.dtype)[None, None]
        return mixed


def causal_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T M H"],
    value: Float[Array, "B T M H"],
    *,
    valid: Bool[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """softmax(q kᵀ / √H) v over the valid tokens up to each position.

    Each position attends to itself even where it is padding, so that no softmax is
    empty. Softmax in float32.

    Args:
      query: N query heads; query head n reads key/value head n // (N/M).
      key: M heads.
      value: M heads.
      valid: False marks padding, which no other position reads.
    """
    batch, length, heads, size = query.shape
    kv_heads = key.shape[2]
    scaled = query * size**-0.5
    scores = jnp.einsum(
        "btmrh,bsmh->bmrts",
        scaled.reshape(batch, length, kv_heads, heads // kv_heads, size),
        key,
        preferred_element_type=jnp.float32,
    )
    row = jnp.arange(length)
    causal = row[None, :] <= row[:, None]
    itself = row[None, :] == row[:, None]
    mask = causal[None] & (valid[:, None, :] | itself[None])
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


def step_attention(
    query: Float[Array, "B N H"],
    *,
    prompt_key: Float[Array, "P M S H"],
    prompt_value: Float[Array, "P M S H"],
    prompt_mask: Bool[Array, "P S"],
    key: Float[Array, "B M T H"],
    value: Float[Array, "B M T H"],
    mask: Bool[Array, "B T"],
) -> Float[Array, "B N H"]:
    """One token of each row against its prompt and its slots, in one softmax.

    Row b reads prompt b // (B/P): the keys of a prompt are read once for its group.

    Args:
      query: N query heads.
      prompt_key: M heads of each prompt.
      prompt_value: M heads of each prompt.
      prompt_mask: False marks padding of the prompts.
      key: M heads of each row's slots.
      value: M heads of each row's slots.
      mask: slots to read; at least one in each row.
    """
    rows, heads, size = query.shape
    prompts, kv_heads, width, _ = prompt_key.shape
    group, shared = rows // prompts, heads // kv_heads
    own = query.reshape(rows, kv_heads, shared, size)
    grouped = query.reshape(prompts, group, kv_heads, shared, size)
    before = jnp.einsum(
        "pgmrh,pmsh->pgmrs", grouped, prompt_key, preferred_element_type=jnp.float32
    )
    before = jnp.where(prompt_mask[:, None, None, None], before * size**-0.5, _MASKED)
    since = jnp.einsum("bmrh,bmth->bmrt", own, key, preferred_element_type=jnp.float32)
    since = jnp.where(mask[:, None, None], since * size**-0.5, _MASKED)
    scores = jnp.concatenate(
        [before.reshape(rows, kv_heads, shared, width), since], axis=-1
    )
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    before, since = weights[..., :width], weights[..., width:]
    before = before.reshape(prompts, group, kv_heads, shared, width)
    out = jnp.einsum("pgmrs,pmsh->pgmrh", before, prompt_value).reshape(own.shape)
    out += jnp.einsum("bmrt,bmth->bmrh", since, value)
    return out.reshape(query.shape)
