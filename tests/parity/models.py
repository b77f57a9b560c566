"""Small random checkpoints of every family, made and saved by transformers."""

import dataclasses
import functools
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

_SIZES = {
    "vocab_size": 100,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "rope_theta": 10_000.0,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A model type and what differs from `_SIZES`."""

    name: str
    model_type: str
    changes: dict

    def __str__(self):
        return self.name


def _case(name, model_type, **changes):
    return Case(name, model_type, changes)


CASES = [
    _case("llama", "llama"),
    _case("llama-mha-tied", "llama", num_key_value_heads=4, tie_word_embeddings=True),
    _case("llama-biases", "llama", attention_bias=True, mlp_bias=True),
    _case("llama2-linear", "llama", rope_scaling={"type": "linear", "factor": 4.0}),
    _case(
        "llama3-scaled",
        "llama",
        rope_theta=500_000.0,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    _case(
        "llama-yarn-deepseek",
        "llama",
        rope_scaling={
            "type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 32,
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": 1.0,
            "mscale_all_dim": 0.5,
        },
    ),
    _case("qwen2", "qwen2", rope_theta=1e6),
    _case("qwen2-tied", "qwen2", tie_word_embeddings=True),
    _case(
        "qwen2-yarn",
        "qwen2",
        rope_scaling={
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    _case(
        "seed-oss",
        "seed_oss",
        attention_out_bias=True,
        attention_dropout=0.0,
        residual_dropout=0.0,
    ),
    _case("qwen3", "qwen3", rope_theta=1e6),
    _case("qwen3-tied", "qwen3", tie_word_embeddings=True, rms_norm_eps=1e-5),
    _case("qwen3-biased-mha", "qwen3", attention_bias=True, num_key_value_heads=4),
]


@functools.cache
def theirs(case, seed=0):
    """transformers' model in float32, with no scale at 1 and no bias at 0."""
    settings = _SIZES | case.changes
    if "rope_scaling" in settings:
        settings["rope_scaling"] = settings["rope_scaling"] | {
            "rope_theta": settings["rope_theta"]
        }
    torch.manual_seed(seed)
    config = AutoConfig.for_model(case.model_type, **settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return model.eval()


@functools.cache
def saved(case, dtype="float32", shard="40KB", seed=0):
    """Folder that transformers saved the model to, in several files."""
    folder = Path(tempfile.mkdtemp(prefix=f"fdjax-{case.name}-"))
    model = theirs(case, seed)
    if dtype != "float32":
        model = type(model)(model.config).to(getattr(torch, dtype))
        model.load_state_dict(theirs(case, seed).state_dict())
    model.save_pretrained(folder, max_shard_size=shard)
    return folder
