"""Policies by name: what config.json of published models says, without a download."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fdjax.checkpoint.description import read_config
from fdjax.errors import ConfigError
from fdjax.model import ModelConfig

__all__ = ["SIZES", "policy_config"]

_QWEN3 = ModelConfig(
    vocab_size=151_936,
    hidden_size=4_096,
    intermediate_size=12_288,
    num_layers=36,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    rope_theta=1e6,
    tie_word_embeddings=False,
    max_position_embeddings=40_960,
    dtype="bfloat16",
)
"""config.json of Qwen/Qwen3-8B on the Hugging Face hub."""

SIZES: Mapping[str, ModelConfig] = {
    "qwen3-0.6b": replace(
        _QWEN3,
        hidden_size=1_024,
        intermediate_size=3_072,
        num_layers=28,
        num_heads=16,
        tie_word_embeddings=True,
    ),
    "qwen3-1.7b": replace(
        _QWEN3,
        hidden_size=2_048,
        intermediate_size=6_144,
        num_layers=28,
        num_heads=16,
        tie_word_embeddings=True,
    ),
    "qwen3-4b": replace(
        _QWEN3,
        hidden_size=2_560,
        intermediate_size=9_728,
        tie_word_embeddings=True,
    ),
    "qwen3-8b": _QWEN3,
    "qwen3-14b": replace(
        _QWEN3,
        hidden_size=5_120,
        intermediate_size=17_408,
        num_layers=40,
        num_heads=40,
    ),
    "qwen3-32b": replace(
        _QWEN3,
        hidden_size=5_120,
        intermediate_size=25_600,
        num_layers=64,
        num_heads=64,
    ),
    "llama-3-8b": ModelConfig(
        vocab_size=128_256,
        hidden_size=4_096,
        intermediate_size=14_336,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        rope_theta=5e5,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        qk_norm=False,
        max_position_embeddings=8_192,
        dtype="bfloat16",
    ),
    "tiny": ModelConfig(
        vocab_size=2_048,
        hidden_size=256,
        intermediate_size=512,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=128,
        max_position_embeddings=4_096,
        dtype="bfloat16",
    ),
}
"""Decoders by name: Qwen3 (arXiv:2505.09388, table 1) and Llama 3 (arXiv:2407.21783,
table 3) as config.json of their repositories on the hub has them. `tiny` is nobody's,
and compiles in seconds."""


def policy_config(source: str) -> ModelConfig:
    """The decoder that a run would train.

    Args:
      source: a name of `SIZES`, perhaps as on the hub (Qwen/Qwen3-8B), or a folder with
        config.json; weights and tokenizer need not be there.

    Raises:
      ConfigError: it is neither, or no model of the families that the decoder has.
    """
    folder = Path(source)
    if source and folder.is_dir():
        return read_config(folder)[1]
    name = source.rpartition("/")[2].lower()
    if name not in SIZES:
        raise ConfigError(
            f"expected --policy to be one of {', '.join(SIZES)}, or a folder with "
            f"config.json, got {source!r}"
        )
    return SIZES[name]
