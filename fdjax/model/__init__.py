"""One decoder for Llama, Qwen2 and Qwen3, as pure functions over a pytree."""

from fdjax.model.config import ModelConfig
from fdjax.model.families import config_from_hf, config_to_hf
from fdjax.model.lora import (
    Adapted,
    Adapter,
    LoRA,
    adapt,
    init_adapters,
    merge,
    split,
)
from fdjax.model.paged import pages_sharding
from fdjax.model.pages import Pages
from fdjax.model.rope import LinearScaling, Llama3Scaling, YarnScaling
from fdjax.model.transformer import Model
from fdjax.model.vocabulary import check_vocabulary
from fdjax.model.weights_dtype import (
    WeightsDType,
    weights_dtype,
    with_weights_dtype,
)

__all__ = [
    "Adapted",
    "Adapter",
    "LinearScaling",
    "Llama3Scaling",
    "LoRA",
    "Model",
    "ModelConfig",
    "Pages",
    "WeightsDType",
    "YarnScaling",
    "adapt",
    "check_vocabulary",
    "config_from_hf",
    "config_to_hf",
    "init_adapters",
    "merge",
    "pages_sharding",
    "split",
    "weights_dtype",
    "with_weights_dtype",
]
