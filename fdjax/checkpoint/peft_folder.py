"""Adapters in PEFT's format, which vLLM and others read beside the base model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from fdjax.checkpoint.hf_folder import ADAPTER
from fdjax.checkpoint.names import weights
from fdjax.checkpoint.paths import find
from fdjax.checkpoint.safetensors_file import SafetensorsFile
from fdjax.errors import CheckpointError
from fdjax.model import LoRA, ModelConfig

__all__ = ["save_adapters", "write_adapters"]

_TENSORS = "adapter_model.safetensors"


def save_adapters(
    adapters: Any, config: ModelConfig, target: Path, *, lora: LoRA, base: str
) -> None:
    """Writes adapters as PEFT does, in float32: A as [r, inputs], B as [outputs, r].

    On several processes all call it, and process 0 writes.

    Args:
      adapters: a state's `params`, or its teacher.
      config: of the model.
      target: a folder that does not exist yet.
      lora: their rank, scale and targets.
      base: folder or hub id of the model that they are on, as PEFT will look for it.

    Raises:
      CheckpointError: the folder is there already.
    """
    host = jax.tree.map(_whole, adapters)
    if jax.process_index() == 0:
        write_adapters(host, config, target, lora=lora, base=base)


def write_adapters(
    host: Any, config: ModelConfig, target: Path, *, lora: LoRA, base: str
) -> None:
    """What `save_adapters` does, by one process and for arrays in its memory."""
    tensors: dict[str, np.ndarray] = {}
    modules: set[str] = set()
    for weight in weights(config):
        adapter = find(host, weight.path)
        if adapter is None:
            continue
        module = weight.tensor.removesuffix(".weight")
        modules.add(module.rpartition(".")[2])
        inputs = weight.inputs
        for part, stack, shape, own in (
            ("lora_A", adapter.a, (*weight.shape[:inputs], lora.rank), inputs),
            ("lora_B", adapter.b, (lora.rank, *weight.shape[inputs:]), 1),
        ):
            as_tensor = replace(weight, shape=shape, inputs=own)
            name = f"base_model.model.{module}.{part}.weight"
            tensors[name] = as_tensor.to_hf(stack[weight.layer])
    alpha = int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": alpha,
        "target_modules": sorted(modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    try:
        target.mkdir(parents=True)
    except FileExistsError as error:
        raise CheckpointError(
            f"Expected a new folder to write adapters to, got {target}, which is "
            "there; give another, or delete it."
        ) from error
    kinds = {name: (str(array.dtype), array.shape) for name, array in tensors.items()}
    file = SafetensorsFile(target / _TENSORS, kinds)
    for name, array in tensors.items():
        file.write(name, array)
    (target / ADAPTER).write_text(json.dumps(described, indent=2) + "\n")


def _whole(leaf: jax.Array) -> np.ndarray:
    if not leaf.is_fully_addressable:
        return multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)
