"""What a decoder looks like and how it is computed."""

from dataclasses import dataclass
from typing import Literal, get_args

from fdjax.errors import ConfigError
from fdjax.model.rope import RopeScaling
from fdjax.ranges import (
    FLAG,
    INT32_MAX,
    Among,
    Number,
    TupleOf,
    Whole,
    require_fields,
)

__all__ = ["CHECKPOINT_NAMES", "AttentionKind", "ModelConfig", "Remat"]

AttentionKind = Literal["auto", "reference", "xla", "cudnn", "splash"]
Remat = Literal["none", "dots", "named", "full"]

CHECKPOINT_NAMES = ("query", "key", "value", "heads", "attention", "inner", "mlp")
"""What `remat="named"` can keep of a block: the projections after RoPE, the heads'
results, attention after its output projection, the inner and the outer result of the
feed-forward layer."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a pre-norm decoder with RoPE, grouped-query attention and SwiGLU."""

    vocab_size: int
    """Entries of the embedding table; token ids lie below it."""
    hidden_size: int
    """Width of the residual stream."""
    intermediate_size: int
    """Width of the SwiGLU inner layer."""
    num_layers: int
    """Decoder blocks."""
    num_heads: int
    """Query heads."""
    num_kv_heads: int
    """Key/value heads; divides `num_heads`."""
    head_dim: int
    """Width of a head; even, because RoPE turns pairs."""
    rope_theta: float = 10_000.0
    """Base of the RoPE wavelengths (arXiv:2104.09864; Qwen3 uses 1e6)."""
    rope_scaling: RopeScaling | None = None
    """How RoPE was stretched to a longer context, if it was."""
    rms_norm_eps: float = 1e-6
    """Added to the mean square in every RMSNorm."""
    tie_word_embeddings: bool = True
    """Whether the head is the embedding table."""
    qk_norm: bool = True
    """Whether queries and keys pass an RMSNorm per head (Qwen3)."""
    attention_bias: bool = False
    """Whether the projections of query, key and value have a bias (Qwen2)."""
    output_bias: bool = False
    """Whether attention's output projection has a bias."""
    mlp_bias: bool = False
    """Whether the three products of the feed-forward layer have a bias."""
    max_position_embeddings: int = 32_768
    """Longest sequence, tokens; longer inputs are an error."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations; norms, RoPE, softmax and logits are float32 in any case.
    Parameters have the type that they were made or loaded with."""
    attention: AttentionKind = "auto"
    """Kernel of the causal pass: see `fdjax.model.kernels`; "auto" goes by platform."""
    remat: Remat = "full"
    """What the backward pass recomputes of each block: nothing ("none"), for models
    whose activations fit; all but products of matrices ("dots"); all but `remat_names`
    ("named"); everything ("full"), a third more work that fits at any size."""
    remat_names: tuple[str, ...] = ("heads",)
    """What `remat="named"` keeps, among `CHECKPOINT_NAMES`."""
    unroll: bool = False
    """Whether blocks are compiled one by one instead of as a loop: faster for a few
    blocks on a CPU, slow to compile for many."""

    def __post_init__(self) -> None:
        sizes = (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "max_position_embeddings",
        )
        flags = (
            "tie_word_embeddings",
            "qk_norm",
            "attention_bias",
            "output_bias",
            "mlp_bias",
            "unroll",
        )
        require_fields(
            self,
            **dict.fromkeys(sizes, Whole(1, INT32_MAX)),
            **dict.fromkeys(flags, FLAG),
            rope_theta=Number(above=0),
            rms_norm_eps=Number(above=0),
            dtype=Among("float32", "bfloat16"),
            attention=Among(*get_args(AttentionKind)),
            remat=Among(*get_args(Remat)),
            remat_names=TupleOf(Among(*CHECKPOINT_NAMES)),
        )
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                "expected ModelConfig.num_kv_heads to divide num_heads = "
                f"{self.num_heads}, got "
                f"{self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ConfigError(
                "expected ModelConfig.head_dim to be even, because RoPE turns pairs, "
                f"got {self.head_dim}"
            )
        scaling = self.rope_scaling
        if scaling is not None and not isinstance(scaling, RopeScaling):
            raise ConfigError(
                "expected ModelConfig.rope_scaling to be a LinearScaling, "
                f"Llama3Scaling, YarnScaling or None, got {scaling!r}"
            )
