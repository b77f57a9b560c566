"""Model families of Hugging Face as data, and their config.json from and to ours."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from fdjax.errors import ConfigError
from fdjax.model.config import ModelConfig
from fdjax.model.rope import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling
from fdjax.model.weights_dtype import DTYPE_KEYS, weights_dtype

__all__ = ["FAMILIES", "Family", "config_from_hf", "config_to_hf"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What tells one family of decoders from another."""

    model_type: str
    """As in config.json."""
    architecture: str
    """Class of the causal language model in transformers."""
    flags: Mapping[str, bool | str]
    """For each flag of `ModelConfig` its value, or the key of config.json that is it.
    """
    written: Mapping[str, float] = field(default_factory=dict)
    """Keys of config.json whose default is not ours."""


FAMILIES = (
    Family(
        model_type="qwen3",
        architecture="Qwen3ForCausalLM",
        flags={
            "qk_norm": True,
            "attention_bias": "attention_bias",
            "output_bias": "attention_bias",
            "mlp_bias": False,
        },
    ),
    Family(
        model_type="llama",
        architecture="LlamaForCausalLM",
        flags={
            "qk_norm": False,
            "attention_bias": "attention_bias",
            "output_bias": "attention_bias",
            "mlp_bias": "mlp_bias",
        },
    ),
    Family(
        model_type="seed_oss",
        architecture="SeedOssForCausalLM",
        flags={
            "qk_norm": False,
            "attention_bias": "attention_bias",
            "output_bias": "attention_out_bias",
            "mlp_bias": "mlp_bias",
        },
        written={"attention_dropout": 0.0, "residual_dropout": 0.0},
    ),
    Family(
        model_type="qwen2",
        architecture="Qwen2ForCausalLM",
        flags={
            "qk_norm": False,
            "attention_bias": True,
            "output_bias": False,
            "mlp_bias": False,
        },
    ),
)
"""The families that the decoder is; a model made from nothing is the first that fits.

Qwen2 comes last: transformers 5 gives every model of its type Qwen's rules for cutting
text into words, whatever tokenizer.json says (`AutoTokenizer.from_pretrained`), and
with a tokenizer of one's own these give other tokens than in training. A Seed-OSS is
the same decoder and keeps its tokenizer.
"""

_NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "rms_norm_eps": "rms_norm_eps",
    "tie_word_embeddings": "tie_word_embeddings",
    "max_position_embeddings": "max_position_embeddings",
}
"""Our field to the key of config.json, where only the name differs."""

_SCALINGS = {
    LinearScaling: "linear",
    Llama3Scaling: "llama3",
    YarnScaling: "yarn",
}
"""Our class to transformers' name of a RoPE scaling."""

_UNREADABLE = (StrictDataclassError, ValueError, TypeError, KeyError, ArithmeticError)
"""What transformers and Python raise at values of the wrong type or size."""


def config_from_hf(config: Mapping[str, Any]) -> ModelConfig:
    """Reads the content of a config.json; transformers fills in its defaults.

    How the model is computed (dtype, attention kernel, remat) is not part of it and
    keeps our defaults. The type of the weights is only checked: see `weights_dtype`.

    Args:
      config: of a Llama, Qwen2, Qwen2.5, Qwen3 or Seed-OSS model.

    Raises:
      ConfigError: the family is unknown, or the model asks for what this decoder does
        not do.
    """
    family = _family(config)
    weights_dtype(config)
    quantization = config.get("quantization_config")
    if quantization is not None:
        known = isinstance(quantization, Mapping)
        method = quantization.get("quant_method") if known else quantization
        raise ConfigError(
            f"expected weights in a floating type, got a model quantised by {method!r}:"
            " use the checkpoint that it was made from"
        )
    # Where PyTorch is, transformers looks types up in it, those that do not count too.
    typeless = {key: config[key] for key in config if key not in DTYPE_KEYS}
    try:
        full = AutoConfig.for_model(**typeless).to_dict()
    except _UNREADABLE as error:
        raise ConfigError(
            f"expected a config.json of {family.model_type}, got one that "
            f"transformers cannot read: {error}"
        ) from error
    # "swish" is SiLU's first name.
    _refuse(full, "hidden_act", full["hidden_act"] in ("silu", "swish"), "'silu'")
    # transformers derives them from use_sliding_window and max_window_layers where
    # config.json does not say them, and goes by them alone.
    kinds = set(full.get("layer_types") or ["full_attention"])
    attends = kinds == {"full_attention"}
    _refuse(full, "layer_types", attends, "full attention in all layers")
    size = full.get("head_dim") or full["hidden_size"] // full["num_attention_heads"]
    flags: dict[str, Any] = {
        name: full[value] if isinstance(value, str) else value
        for name, value in family.flags.items()
    }
    rope = dict(full["rope_parameters"])
    theta = rope["rope_theta"]
    number = isinstance(theta, int | float)
    _refuse(full, "rope_parameters", number, "rope_theta as a number")
    fields: dict[str, Any] = {
        name: full[key] for name, key in _NAMES.items() if name != "head_dim"
    }
    return ModelConfig(
        **fields,
        **flags,
        head_dim=size,
        rope_theta=float(theta),
        rope_scaling=_scaling(rope, full),
    )


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """The content of a config.json that `config_from_hf` reads as the same model.

    It says the first of `FAMILIES` that the model is.

    Raises:
      ConfigError: it is none of them.
    """
    for family in FAMILIES:
        keys = _keys(family, config)
        if keys is not None:
            return {
                "architectures": [family.architecture],
                "model_type": family.model_type,
                "hidden_act": "silu",
                **{key: getattr(config, name) for name, key in _NAMES.items()},
                **keys,
                **family.written,
                "rope_parameters": {
                    "rope_theta": config.rope_theta,
                    **_rope_to_hf(config.rope_scaling),
                },
                "dtype": "float32",
            }
    raise ConfigError(
        f"expected a model of the families {', '.join(_types())}, got qk_norm = "
        f"{config.qk_norm}, attention_bias = {config.attention_bias}, output_bias = "
        f"{config.output_bias}, mlp_bias = {config.mlp_bias}: none of them is so"
    )


def _types() -> list[str]:
    return [family.model_type for family in FAMILIES]


def _family(config: Mapping[str, Any]) -> Family:
    found, classes = config.get("model_type"), config.get("architectures") or []
    if not isinstance(classes, list):
        raise ConfigError(
            f"expected architectures in config.json to be a list, got {classes!r}: "
            "write the class of the causal language model there, in brackets"
        )
    for family in FAMILIES:
        if family.model_type == found:
            if classes and family.architecture not in classes:
                raise ConfigError(
                    f"expected architectures = [{family.architecture!r}] in "
                    f"config.json, got {classes}: only causal language models are read"
                )
            return family
    raise ConfigError(
        f"expected model_type among {', '.join(_types())} in config.json, got "
        f"{found!r} (architectures {classes}): this decoder does not implement it"
    )


def _refuse(full: Mapping[str, Any], key: str, supported: bool, want: str) -> None:
    if not supported:
        raise ConfigError(
            f"expected {want} in config.json, got {key} = {full.get(key)!r}: this "
            "decoder does not implement it"
        )


def _scaling(rope: dict[str, Any], full: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", "default")
    partial = rope.get("partial_rotary_factor") or 1.0
    _refuse(full, "rope_parameters", partial == 1.0, "RoPE on whole heads")
    supported = ["default", *_SCALINGS.values()]
    _refuse(
        full,
        "rope_parameters",
        kind in supported,
        f"rope_type in {', '.join(supported)}",
    )
    if kind == "default":
        return None
    scaling = next(cls for cls, name in _SCALINGS.items() if name == kind)
    known = scaling.__dataclass_fields__
    try:
        given: dict[str, Any] = {
            key: rope[key] if field.type in (int, bool) else float(rope[key])
            for key, field in known.items()
            if rope.get(key) is not None
        }
        if scaling is YarnScaling and "attention_factor" not in given:
            given |= _attention_factor(rope)
        return scaling(**given)
    except ConfigError:
        raise
    except _UNREADABLE as error:
        raise ConfigError(
            f"expected rope_parameters of {kind!r} with {', '.join(known)}, got "
            f"{rope}: {error}"
        ) from error


def _attention_factor(rope: Mapping[str, Any]) -> dict[str, float]:
    """DeepSeek's two scales of YaRN's attention, as the one factor that they make."""
    above, below = rope.get("mscale"), rope.get("mscale_all_dim")
    if not above or not below:
        return {}

    def scale(weight: float) -> float:
        return 1.0 + max(0.1 * weight * math.log(rope["factor"]), 0.0)

    return {"attention_factor": scale(float(above)) / scale(float(below))}


def _rope_to_hf(scaling: RopeScaling | None) -> dict[str, Any]:
    if scaling is None:
        return {"rope_type": "default"}
    return {"rope_type": _SCALINGS[type(scaling)]} | asdict(scaling)


def _keys(family: Family, config: ModelConfig) -> dict[str, bool] | None:
    """The flags as keys of config.json, or None where the family cannot say them."""
    keys: dict[str, bool] = {}
    for name, value in family.flags.items():
        own = getattr(config, name)
        if isinstance(value, str):
            if keys.setdefault(value, own) != own:
                return None
        elif value != own:
            return None
    return keys
