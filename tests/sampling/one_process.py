"""One of several processes that drive the sampler on their common mesh."""

import json
import sys
from pathlib import Path

import jax
import numpy as np

from fdjax.sampling import SamplingConfig, SlotSampler, SlotsConfig
from fdjax.sharding import init_sharded, initialize_distributed, make_mesh
from tiny import MODEL


def work(mesh):
    """Tokens and decisions, which must not depend on how many processes there are."""
    # Weights come from another mesh, as those of training do.
    params = init_sharded(
        make_mesh(data=1, fsdp=8), MODEL.init, MODEL.logical_axes(), jax.random.key(0)
    )
    sampler = SlotSampler(
        MODEL,
        SamplingConfig(max_new_tokens=12, temperature=0.8, stop_tokens=(3, 4)),
        SlotsConfig(longest=40, slots=8, page=4, steps=5, blocks=2),
        mesh,
    )
    rng = np.random.default_rng(1)
    futures = [
        sampler.submit(
            rng.integers(0, MODEL.config.vocab_size, 1 + number).tolist(),
            jax.random.key(number),
            max_new_tokens=12,
        )
        for number in range(12)
    ]
    with jax.transfer_guard("disallow"):
        sampler.publish(params, 1)
        sampler.drain()
    tokens = [future.result(timeout=0).tokens.tolist() for future in futures]
    use = sampler.use()
    return {"tokens": tokens, "steps": use.steps, "reused": use.reused}


if __name__ == "__main__":
    port, count, index, folder = sys.argv[1:]
    initialize_distributed(
        coordinator_address=f"127.0.0.1:{port}",
        num_processes=int(count),
        process_id=int(index),
    )
    result = work(make_mesh(data=2, fsdp=2, tensor=2))
    (Path(folder) / f"{index}.json").write_text(json.dumps(result))
