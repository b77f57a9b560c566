"""What a decoder is made of: its layer, and what stands before and after all layers."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from fdjax.model.attention import Attention
from fdjax.model.config import ModelConfig
from fdjax.model.layers import RMSNorm, SwiGLU, fan_in_normal

__all__ = ["Block", "Ends", "recomputed"]


class Block(nnx.Module):
    """Pre-norm attention and feed-forward layer around the residual stream."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        width, eps = config.hidden_size, config.rms_norm_eps
        self.attention_norm = RMSNorm(width, "embed", eps)
        self.attention = Attention(config, rngs)
        self.mlp_norm = RMSNorm(width, "embed", eps)
        self.mlp = SwiGLU(config, rngs)


class Ends(nnx.Module):
    """What stands before and after the blocks: embedding, last norm, head."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        width, shape = config.hidden_size, (config.vocab_size, config.hidden_size)
        self.embedding = nnx.Param(
            fan_in_normal(rngs.params(), shape, width), axes=("vocab", "embed")
        )
        self.norm = RMSNorm(width, "embed", config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.head = nnx.Param(
                fan_in_normal(rngs.params(), shape, width), axes=("vocab", "embed")
            )


def recomputed(layer: Callable[..., Any], config: ModelConfig) -> Callable[..., Any]:
    """`layer` with what `config.remat` names recomputed in the backward pass."""
    policies = jax.checkpoint_policies
    match config.remat:
        case "none":
            return layer
        case "dots":
            policy = policies.dots_with_no_batch_dims_saveable
        case "named":
            policy = policies.save_only_these_names(*config.remat_names)
        case "full":
            policy = policies.nothing_saveable
    # Unrolled, common subexpressions would undo the recomputation; inside a loop they
    # cannot, and preventing them costs memory traffic.
    return jax.checkpoint(layer, prevent_cse=config.unroll, policy=policy)
