"""What a decoder looks like, and its translation from and to Hugging Face."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fdjax.errors import ConfigError

__all__ = ["ModelConfig"]

_HF_NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "rms_norm_eps": "rms_norm_eps",
    "tie_word_embeddings": "tie_word_embeddings",
    "attention_bias": "attention_bias",
    "max_position_embeddings": "max_position_embeddings",
}
"""Our field to the key of a Hugging Face config.json, where only the name differs."""

_HF_REQUIRED = {
    "model_type": "qwen3",
    "hidden_act": "silu",
    "use_sliding_window": False,
    "rope_scaling": None,
}
"""Keys of a config.json that may have one value only; an absent key has it."""


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
    rms_norm_eps: float = 1e-6
    """Added to the mean square in every RMSNorm."""
    tie_word_embeddings: bool = True
    """Whether the head is the embedding table."""
    qk_norm: bool = True
    """Whether queries and keys pass an RMSNorm per head (Qwen3)."""
    attention_bias: bool = False
    """Whether the four attention projections have a bias."""
    max_position_embeddings: int = 32_768
    """Longest sequence, tokens; longer inputs are an error."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations; parameters, norms, softmax and logits stay float32."""
    remat: Literal["none", "full"] = "none"
    """Whether the backward pass recomputes each block instead of storing it."""
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
        for name in sizes:
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"expected {name} to be at least 1, got {getattr(self, name)}"
                )
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"expected num_kv_heads to divide num_heads = {self.num_heads}, got "
                f"{self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ConfigError(
                f"expected an even head_dim, because RoPE turns pairs, got "
                f"{self.head_dim}"
            )
        for name in ("rope_theta", "rms_norm_eps"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"expected {name} to be positive, got {getattr(self, name)}"
                )
        if self.dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"expected dtype float32 or bfloat16, got {self.dtype!r}")
        if self.remat not in ("none", "full"):
            raise ConfigError(f"expected remat none or full, got {self.remat!r}")

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "ModelConfig":
        """Reads the content of a Hugging Face config.json of Qwen3.

        RoPE's base is taken from `rope_parameters` (transformers 5) or `rope_theta`.
        Compute dtype and remat are not part of it and keep their defaults.

        Raises:
          ConfigError: a key is missing, or asks for what this decoder does not do.
        """
        for key, supported in _HF_REQUIRED.items():
            if config.get(key, supported) != supported:
                raise ConfigError(
                    f"expected {key} = {supported!r} in config.json, got "
                    f"{config[key]!r}: this decoder does not implement it"
                )
        missing = [key for key in _HF_NAMES.values() if key not in config]
        if missing:
            raise ConfigError(
                f"expected a Qwen3 config.json with the keys {missing}, got only "
                f"{sorted(config)}"
            )
        rope = config.get("rope_parameters") or {}
        if rope.get("rope_type", "default") != "default":
            raise ConfigError(
                f"expected rope_type 'default' in config.json, got "
                f"{rope['rope_type']!r}: RoPE scaling is not implemented"
            )
        theta = rope.get("rope_theta", config.get("rope_theta"))
        if theta is None:
            raise ConfigError(
                "expected rope_theta in config.json, by itself or in rope_parameters"
            )
        fields = {name: config[key] for name, key in _HF_NAMES.items()}
        return cls(**fields, rope_theta=float(theta), qk_norm=True)

    def to_hf(self) -> dict[str, Any]:
        """The content of a Hugging Face config.json of Qwen3.

        Raises:
          ConfigError: the decoder is not a Qwen3 (`qk_norm` is off).
        """
        if not self.qk_norm:
            raise ConfigError(
                "expected qk_norm = True, because every Qwen3 has it, got False: such "
                "a model cannot be written as Qwen3"
            )
        return {
            "architectures": ["Qwen3ForCausalLM"],
            **_HF_REQUIRED,
            **{key: getattr(self, name) for name, key in _HF_NAMES.items()},
            "rope_theta": self.rope_theta,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": self.rope_theta,
            },
            "dtype": "float32",
        }
