"""Peak memory and time of `fdjax convert` and of loading onto a mesh.

`python -m benchmarks.convert` makes a checkpoint of random bfloat16 weights in the
shape of Qwen3-1.7B and takes it to Orbax, back to safetensors, and onto eight CPU
devices, each in a process of its own. It does the same with a training checkpoint of
float32 weights from a mesh. Peak memory is the largest resident set.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import ml_dtypes
import numpy as np

from fdjax.checkpoint.hf_writer import HfWriter
from fdjax.checkpoint.names import weights
from fdjax.model import ModelConfig, config_to_hf

QWEN3_1_7B = ModelConfig(
    vocab_size=151_936,
    hidden_size=2_048,
    intermediate_size=6_144,
    num_layers=28,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    rope_theta=1e6,
    max_position_embeddings=40_960,
)

_LOAD = """
import jax, sys
jax.config.update("jax_num_cpu_devices", 8)
from fdjax.checkpoint import load_pretrained
from fdjax.sharding import make_mesh
mesh = make_mesh(fsdp=4, tensor=2)
loaded = load_pretrained(sys.argv[1], mesh, param_dtype="bfloat16")
jax.block_until_ready(loaded.params)
"""

_TRAIN = """
import jax, shutil, sys
from pathlib import Path
jax.config.update("jax_num_cpu_devices", 8)
from fdjax.checkpoint import CheckpointStore, load_pretrained
from fdjax.sharding import make_mesh
loaded = load_pretrained(sys.argv[1], make_mesh(fsdp=4, tensor=2))
run = Path(sys.argv[2])
heavy = shutil.ignore_patterns("*.safetensors*")
shutil.copytree(sys.argv[1], run / "model", ignore=heavy)
with CheckpointStore(run / "fd") as store:
    store.save(0, {"params": loaded.params, "teacher": loaded.params}, {})
"""


def make_checkpoint(folder: Path, config: ModelConfig, shard_bytes: int) -> int:
    """Random weights as a Hugging Face folder; returns the largest file's bytes."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps(config_to_hf(config) | {"dtype": "bfloat16"})
    )
    kinds = [(weight, "bfloat16") for weight in weights(config)]
    writer = HfWriter(folder, kinds, max_shard_bytes=shard_bytes)
    rng = np.random.default_rng(0)
    for weight, _ in kinds:
        values = rng.standard_normal(weight.shape, np.float32) * 0.02
        writer.write(weight, values.astype(ml_dtypes.bfloat16))
    writer.close()
    return max(path.stat().st_size for path in folder.glob("*.safetensors"))


def measure(command: list[str]) -> tuple[float, float]:
    """Peak resident gigabytes and seconds of a command."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * 1024 / 1e9, time.monotonic() - start


def main() -> None:
    """Prints a row for each direction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shard-gb", type=float, default=0.5)
    shard_gb = parser.parse_args().shard_gb
    with tempfile.TemporaryDirectory(prefix="fdjax-convert-") as name:
        folder = Path(name)
        # A child's peak counts that of the process it was forked from, so the process
        # that measures makes nothing itself.
        with get_context("spawn").Pool(1) as pool:
            arguments = (folder / "hf", QWEN3_1_7B, int(shard_gb * 1e9))
            largest = pool.apply(make_checkpoint, arguments) / 1e9
        total = (
            sum(p.stat().st_size for p in (folder / "hf").glob("*.safetensors")) / 1e9
        )
        fdjax = [sys.executable, "-m", "fdjax", "convert"]
        shard = ["--max-shard-gb", str(shard_gb)]
        rows = [
            (
                "hf → orbax",
                [*fdjax, f"{name}/hf", f"{name}/orbax", "--to", "orbax"],
                0.0,
            ),
            (
                "orbax → hf",
                [*fdjax, f"{name}/orbax", f"{name}/back", "--to", "hf", *shard],
                0.0,
            ),
            (
                "hf → run",
                [sys.executable, "-c", _TRAIN, f"{name}/hf", f"{name}/run"],
                0.0,
            ),
            (
                "run → hf",
                [*fdjax, f"{name}/run/fd", f"{name}/out", "--to", "hf", *shard],
                0.0,
            ),
            ("run → 8 devices", [sys.executable, "-c", _LOAD, f"{name}/run/fd"], total),
            ("hf → 8 devices", [sys.executable, "-c", _LOAD, f"{name}/hf"], total),
            (
                "orbax → 8 devices",
                [sys.executable, "-c", _LOAD, f"{name}/orbax"],
                total,
            ),
        ]
        print(f"{total:.2f} GB of weights, largest file {largest:.2f} GB")
        print("| direction | peak, GB | of it arrays, GB | bound, GB | seconds |")
        print("|---|---|---|---|---|")
        for what, command, arrays in rows:
            peak, seconds = measure(command)
            bound = 1.2 * largest + 1 + arrays
            print(
                f"| {what} | {peak:.2f} | {arrays:.2f} | {bound:.2f} | {seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
