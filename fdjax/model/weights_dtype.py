"""The type of a model's weights, which config.json may say under either of two keys."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from fdjax.errors import ConfigError

__all__ = ["DTYPE_KEYS", "WeightsDType", "weights_dtype", "with_weights_dtype"]

WeightsDType = Literal["float32", "bfloat16", "float16"]

DTYPE_KEYS = ("dtype", "torch_dtype")
"""Of transformers since 4.56, and before."""

_SYNONYMS = {"float": "float32", "half": "float16"}
"""PyTorch's other names."""


def weights_dtype(config: Mapping[str, Any]) -> WeightsDType | None:
    """What a config.json says of its weights; None where it says nothing.

    As transformers 5 reads it (`PreTrainedConfig.__post_init__`, `_get_dtype`): `dtype`
    counts before `torch_dtype`, null is as good as absent, and of types by part that
    of the whole model counts, which is float32 by default.

    Raises:
      ConfigError: it names no type that weights are read and written in.
    """
    key = next((key for key in DTYPE_KEYS if config.get(key) is not None), None)
    if key is None:
        return None
    named = _named(config[key])
    if named is None:
        raise ConfigError(
            f"expected {key} among {', '.join(get_args(WeightsDType))} in config.json, "
            f"got {config[key]!r}; write the type of the weights there, or null"
        )
    return named


def with_weights_dtype(
    config: Mapping[str, Any], dtype: WeightsDType
) -> dict[str, Any]:
    """A config.json that says `dtype` under each key that it has, or under `dtype`."""
    present = [key for key in DTYPE_KEYS if key in config] or ["dtype"]
    changed = {key: dtype for key in present if _named(config.get(key)) != dtype}
    return {**config, **changed}


def _named(value: object) -> WeightsDType | None:
    """A type by the name that we give it, if we have one."""
    if isinstance(value, Mapping):
        value = value.get("", "float32")
    name = _SYNONYMS.get(value, value) if isinstance(value, str) else None
    return next((dtype for dtype in get_args(WeightsDType) if dtype == name), None)
