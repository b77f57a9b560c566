"""Hugging Face folders of random weights, written tensor by tensor as others would."""

import json

import ml_dtypes
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from fdjax.model import ModelConfig, config_to_hf
from tiny import TOKENIZER

CONFIG = ModelConfig(
    vocab_size=304,
    hidden_size=32,
    intermediate_size=40,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    tie_word_embeddings=False,
    max_position_embeddings=128,
)


def tensors(config=CONFIG, dtype="bfloat16", seed=0):
    """Names, shapes and order as transformers saves a Qwen3 or Qwen2."""
    rng = np.random.default_rng(seed)
    width, inner, size = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_heads * size, config.num_kv_heads * size
    shapes = {"model.embed_tokens.weight": (config.vocab_size, width)}
    for layer in range(config.num_layers):
        own = {
            "input_layernorm.weight": (width,),
            "mlp.down_proj.weight": (width, inner),
            "mlp.gate_proj.weight": (inner, width),
            "mlp.up_proj.weight": (inner, width),
            "post_attention_layernorm.weight": (width,),
            "self_attn.k_proj.weight": (keys, width),
            "self_attn.o_proj.weight": (width, queries),
            "self_attn.q_proj.weight": (queries, width),
            "self_attn.v_proj.weight": (keys, width),
        }
        if config.qk_norm:
            own |= {"self_attn.q_norm.weight": (size,)}
            own |= {"self_attn.k_norm.weight": (size,)}
        if config.attention_bias:
            own |= {"self_attn.q_proj.bias": (queries,)}
            own |= {"self_attn.k_proj.bias": (keys,), "self_attn.v_proj.bias": (keys,)}
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in own.items()}
    shapes["model.norm.weight"] = (width,)
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, width)
    kind = {"bfloat16": ml_dtypes.bfloat16}.get(dtype, dtype)
    return {
        name: rng.normal(0.0, 0.2, shape).astype(kind) for name, shape in shapes.items()
    }


def write_folder(folder, config=CONFIG, files=1, dtype="bfloat16", changes=()):
    """A folder as a hub has it; `changes` replace tensors (None removes one)."""
    folder.mkdir(parents=True)
    TOKENIZER.save_pretrained(str(folder))
    content = config_to_hf(config) | {"dtype": dtype, "use_cache": True}
    (folder / "config.json").write_text(json.dumps(content, indent=3))
    (folder / "generation_config.json").write_text('{"temperature":0.6 , "top_p":0.95}')
    (folder / "LICENSE").write_text("of the weights")
    found = tensors(config, dtype) | dict(changes)
    found = {name: array for name, array in found.items() if array is not None}
    if files == 1:
        save_file(found, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names, weight_map = list(found), {}
    for number, part in enumerate(np.array_split(names, files), start=1):
        file = f"model-{number:05d}-of-{files:05d}.safetensors"
        own = {str(name): found[str(name)] for name in part}
        save_file(own, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(own, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def read_folder(folder):
    """All tensors as bytes with their types and shapes."""
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                array = file.get_tensor(name)
                found[name] = (str(array.dtype), array.shape, array.tobytes())
    return found


def side_bytes(folder):
    """What lies beside the weights, byte for byte."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and "safetensors" not in path.name
    }
