"""Steps of the sampler for an 8B model on TPUs, compiled ahead of time.

Nothing runs: what is held here is that the programs fit, copy no pages, gather no
weights and move little more than they must. Qwen3-8B, 64 slots of 8,192 tokens, heads
cut over the chips; and 512 slots on 32 chips.
"""

import dataclasses
import math
import re

import jax.numpy as jnp
import pytest

from benchmarks import tpu_decode
from benchmarks.tpu_decode import PAGE, QWEN3_8B, SETTINGS, whole
from fdjax.model import Model
from fdjax.plan.topology import mesh_on, prepare
from fdjax.sampling.programs import Blocks, prefill_program

prepare()

GIB = 2**30
BLOCKS = 8
WIDTH = QWEN3_8B.hidden_size
SETTINGS["v5p, two parts"] = tpu_decode.Setting("v5p:2x2x2", 2, 4)
CEILINGS = {
    "v5e": 11.4,
    "v5p": 22.8,
    "v6e": 22.8,
    "v5p, two parts": 13.8,
    "v5p, 512 slots": 22.8,
}
"""GiB a chip. A v5e has 15.75, a v6e 31.25, a v5p 95."""


def _model(name):
    setting = SETTINGS[name]
    mesh = mesh_on(setting.topology, fsdp=setting.parts, tensor=setting.chips)
    return Model(QWEN3_8B, mesh)


def _check(compiled, pages, ceiling, *, temporary):
    """It fits, and pages are updated in place; shapes of what devices exchange.

    `temporary` is the bound of what it holds besides, GiB.
    """
    memory = compiled.memory_analysis()
    held = 2 * pages.size // pages.sharding.mesh.size
    assert memory.peak_memory_in_bytes / GIB < ceiling
    assert memory.alias_size_in_bytes >= held
    assert memory.temp_size_in_bytes / GIB < temporary
    text = compiled.as_text()
    assert "tpu_custom_call" in text
    kinds = "all-gather|all-reduce|all-to-all|collective-permute"
    moved = re.findall(rf"= (.*?) (?:{kinds})(?:-start)?\(", text)
    assert moved
    shapes = [shape for one in moved for shape in re.findall(r"\w\[([\d,]*)\]", one)]
    return [[int(size) for size in shape.split(",") if size] for shape in shapes]


@pytest.mark.parametrize("name", CEILINGS)
def test_a_step_fits_and_moves_rows_alone(name, record_property):
    model, setting = _model(name), SETTINGS[name]
    compiled = tpu_decode.compile_decode(model, setting.slots)
    _, pages = tpu_decode.sampling_shapes(model, setting.slots)
    # Weights in another order, among others. A second copy of a layer's pages has from
    # 0.25 GiB on; what is moved, below, leaves no room for one.
    shapes = _check(compiled, pages, CEILINGS[name], temporary=0.5)
    # The residual stream of each row; no weight, no page and no row of logits.
    assert max(map(math.prod, shapes)) <= setting.slots // setting.parts * WIDTH
    contexts = 1, 2_048, tpu_decode.LONGEST
    for figures in tpu_decode.step_figures(name, model, compiled, contexts):
        record_property(f"{name}, {figures.context}", dataclasses.asdict(figures))
        moved = figures.moved_weights_bytes + figures.moved_rest_bytes
        # Nothing is left out, and what is not weights, keys or values is little.
        assert figures.moved_weights_bytes >= figures.weights_bytes
        assert moved <= 1.3 * figures.weights_bytes
        if figures.context > 1:
            assert figures.ratio <= 1.3
            assert figures.cycles < (30e6 if setting.slots > 64 else 35e6)
    peak = compiled.memory_analysis().peak_memory_in_bytes / GIB
    record_property(name, {"peak": peak})


def test_pages_of_prompts_on_eight_small_chips():
    """Eight pages of prompts in one go."""
    model = _model("v5e")
    params, pages = tpu_decode.sampling_shapes(model, SETTINGS["v5e"].slots)
    row = whole(model.mesh, BLOCKS)
    blocks = Blocks(
        tokens=whole(model.mesh, BLOCKS, PAGE),
        starts=row,
        tables=whole(model.mesh, BLOCKS, tpu_decode.LONGEST // PAGE),
        ends=row,
        keys=whole(model.mesh, BLOCKS, 2, dtype=jnp.uint32),
        numbers=row,
        temperature=whole(model.mesh, BLOCKS, dtype=jnp.float32),
    )
    program = prefill_program(model, tpu_decode.SAMPLING)
    compiled = program.lower(params, pages, blocks).compile()
    # Seen: 0.0016. A layer's pages have 0.25.
    shapes = _check(compiled, pages, CEILINGS["v5e"], temporary=0.02)
    assert max(map(math.prod, shapes)) <= BLOCKS * PAGE * WIDTH
