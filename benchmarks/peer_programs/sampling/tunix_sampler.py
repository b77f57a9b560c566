"""Tunix's `Sampler`, asked as `transformers_generate.py` is."""

import json
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.models.llama3.model import ModelConfig
from tunix.models.llama3.params import create_model_from_safe_tensors


class Numbers:
    """A tokenizer of texts that are token ids already."""

    def encode(self, text: str) -> list[int]:
        """The ids."""
        return [int(word) for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        """Nobody reads it."""
        return str(len(ids))

    def bos_id(self) -> int:
        """None."""
        return 0

    def eos_id(self) -> int:
        """None."""
        return -1

    def pad_id(self) -> int:
        """In no prompt."""
        return 0


def main() -> None:
    """Answer each line."""
    model = config = None
    for line in sys.stdin:
        task = json.loads(line)
        if task["do"] == "load":
            model, config = load(Path(task["folder"]))
            names = ("google-tunix", "jax")
            answer = {"versions": {name: version(name) for name in names}}
        else:
            answer = batch(model, config, task["prompts"], task["new_tokens"])
        print(json.dumps(answer), flush=True)


def load(folder: Path):
    """The Llama in the folder, in float32."""
    stated = json.loads((folder / "config.json").read_text())
    config = ModelConfig(
        num_layers=stated["num_hidden_layers"],
        vocab_size=stated["vocab_size"],
        embed_dim=stated["hidden_size"],
        hidden_dim=stated["intermediate_size"],
        num_heads=stated["num_attention_heads"],
        head_dim=stated["head_dim"],
        num_kv_heads=stated["num_key_value_heads"],
        rope_theta=int(stated["rope_parameters"]["rope_theta"]),
        norm_eps=stated["rms_norm_eps"],
        weight_tying=stated["tie_word_embeddings"],
    )
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=auto)
    model = create_model_from_safe_tensors(str(folder), config, mesh, jnp.float32)
    return model, config


SAMPLERS: dict[int, Sampler] = {}
"""By tokens of prompt and completion."""


def batch(model, config, prompts: list[list[int]], new_tokens: int) -> dict[str, float]:
    """Seconds for so many tokens after each prompt, drawn at temperature 1."""
    length = len(prompts[0])
    if length + new_tokens not in SAMPLERS:
        cache = CacheConfig(
            cache_size=length + new_tokens,
            num_layers=config.num_layers,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
        )
        SAMPLERS[length + new_tokens] = Sampler(model, Numbers(), cache)
    texts = [" ".join(map(str, prompt)) for prompt in prompts]
    begin, wall = processor_seconds(), time.perf_counter()
    out = SAMPLERS[length + new_tokens](
        texts,
        max_generation_steps=new_tokens,
        max_prompt_length=length,
        eos_tokens=[-1],
        temperature=1.0,
        top_p=1.0,
        seed=0,
    )
    found = {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": processor_seconds() - begin,
    }
    assert all(len(tokens) == new_tokens for tokens in out.tokens)
    return found


def processor_seconds() -> float:
    """Seconds of all threads, in this program and in the kernel for it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
