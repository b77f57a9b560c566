"""One decoder for the Qwen3 family, as pure functions over a pytree of parameters."""

from fdjax.model.cache import Cache
from fdjax.model.config import ModelConfig
from fdjax.model.transformer import Model

__all__ = ["Cache", "Model", "ModelConfig"]
