"""How much memory each host takes to save and to load, on several processes.

`python -m benchmarks.host_memory` starts two processes of four CPU devices each,
spreads the parameters of a model over all eight, and saves and loads them as a
checkpoint and in Hugging Face's format. It prints how far each process's resident set
rose at its peak, beside its own share of the parameters and a full copy of them.

The devices of a CPU have their arrays in the host's memory: what is loaded counts.
"""

import argparse
import ctypes
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdjax.checkpoint import CheckpointStore, load_pretrained, save_pretrained
from fdjax.model import Model, ModelConfig, config_to_hf
from fdjax.sharding import initialize_distributed, make_mesh, shardings

CONFIG = ModelConfig(
    vocab_size=8_192,
    hidden_size=1_024,
    intermediate_size=4_096,
    num_layers=16,
    num_heads=16,
    num_kv_heads=16,
    head_dim=64,
    tie_word_embeddings=False,
    max_position_embeddings=1_024,
)
"""1.1 GB in float32; its largest tensor has 34 MB."""

PROCESSES, DEVICES = 2, 8

MB = 1e6


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", nargs=3, metavar=("PORT", "INDEX", "FOLDER"))
    worker = parser.parse_args().worker
    if worker is not None:
        _work(int(worker[0]), int(worker[1]), Path(worker[2]))
        return
    measured = measure()
    names = list(measured[0][0])
    print("| | " + " | ".join(names) + " |")
    print("|---|" + "---|" * len(names))
    for index, (rows, _) in enumerate(measured):
        values = " | ".join(f"{value / MB:,.0f}" for value in rows.values())
        print(f"| process {index}, MB | {values} |")
    for index, (_, (waited, written)) in enumerate(measured):
        print(
            f"process {index}: a step waits {waited:.2f} s for a checkpoint, whose "
            f"writing takes {written:.2f} s more"
        )


def measure() -> list[tuple[dict[str, float], tuple[float, float]]]:
    """Of each process, bytes and seconds.

    Returns:
      Bytes that it holds, and by which it rose at each stage's peak; and how long a
      save took until it returned, and from then on until all was on the disk.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(DEVICES // PROCESSES),
        }
        command = [sys.executable, "-m", "benchmarks.host_memory", "--worker", port]
        processes = [
            subprocess.Popen([*command, str(index), folder], env=environment)
            for index in range(PROCESSES)
        ]
        try:
            codes = [process.wait(timeout=600) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        if any(codes):
            raise RuntimeError(f"the processes ended with {codes}")
        files = [Path(folder) / f"{index}.json" for index in range(PROCESSES)]
        return [json.loads(file.read_text()) for file in files]


def _work(port: int, index: int, folder: Path) -> None:
    initialize_distributed(
        coordinator_address=f"127.0.0.1:{port}",
        num_processes=PROCESSES,
        process_id=index,
    )
    mesh = make_mesh(data=1, fsdp=DEVICES)
    model = Model(CONFIG, mesh)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    layouts = shardings(mesh, model.logical_axes(), shapes)
    params = jax.tree.map(_random, shapes, layouts)
    own = sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(params)
        for shard in leaf.addressable_shards
    )
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    rows: dict[str, float] = {"own share": own, "all parameters": whole}
    description = folder / "description"
    if index == 0:
        description.mkdir()
        content = config_to_hf(CONFIG) | {"dtype": "float32"}
        (description / "config.json").write_text(json.dumps(content))
    with CheckpointStore(folder / "checkpoints") as store:

        def save(step: int) -> tuple[float, float]:
            begin = time.monotonic()
            store.save(step, params, {})
            begun = time.monotonic()
            store.wait()
            return begun - begin, time.monotonic() - begun

        rows["save a checkpoint"], _ = _growth(lambda: save(1))
        # The first one compiles.
        seconds = save(2)
        rows["save for Hugging Face"], _ = _growth(
            lambda: save_pretrained(
                params, CONFIG, folder / "hf", description=description
            )
        )
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=leaf.sharding
            ),
            params,
        )
        jax.tree.map(lambda leaf: leaf.delete(), params)
        rows["load a checkpoint"], (restored, _) = _growth(lambda: store.restore(like))
        jax.tree.map(lambda leaf: leaf.delete(), restored)
    rows["load from Hugging Face"], _ = _growth(
        lambda: load_pretrained(folder / "hf", mesh)
    )
    (folder / f"{index}.json").write_text(json.dumps([rows, seconds]))


def _random(shape: jax.ShapeDtypeStruct, sharding: Any) -> jax.Array:
    """An array that does not compress; each process makes its own parts."""
    rng = np.random.default_rng(0)

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        sizes = [
            len(range(*one.indices(size)))
            for one, size in zip(index or (), shape.shape, strict=True)
        ]
        return rng.normal(0.0, 0.02, sizes).astype(jnp.float32)

    return jax.make_array_from_callback(shape.shape, sharding, part)


def _growth(action: Callable[[], Any]) -> tuple[float, Any]:
    """By how many bytes the resident set rose at its peak, and what was returned."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    result = action()
    jax.block_until_ready(result)
    return _memory("VmHWM") - before, result


def _memory(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * float(line.split()[1])
    raise RuntimeError(f"the system does not tell {name}")


if __name__ == "__main__":
    main()
