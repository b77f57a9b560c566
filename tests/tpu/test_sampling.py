"""Steps of the sampler for an 8B model on TPUs, compiled ahead of time.

Nothing runs: what is held here is that the programs fit, copy no pages and gather no
weights. Qwen3-8B, 64 slots of 8,192 tokens, heads cut over the chips.
"""

import math
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import tpu_losses
from fdjax.model import Model, ModelConfig, pages_sharding
from fdjax.sampling import SamplingConfig
from fdjax.sampling.programs import Blocks, Slots, decode_program, prefill_program
from fdjax.sampling.weights import weights_layout
from fdjax.sharding import batch_parts

tpu_losses.prepare()

GIB = 2**30
SLOTS, LONGEST, PAGE, STEPS, BLOCKS = 64, 8_192, 128, 32, 8
LAYERS, WIDTH, KV_HEADS, HEAD = 36, 4_096, 8, 128
SAMPLING = SamplingConfig(max_new_tokens=LONGEST, stop_tokens=(151_645,))
CHIPS = {
    "v5e": ("v5e:2x4", (1, 8), 11.4),
    "v5p": ("v5p:2x2x1", (1, 4), 22.8),
    "v6e": ("v6e:2x2", (1, 4), 22.8),
    "v5p, two parts": ("v5p:2x2x2", (2, 4), 13.8),
}
"""The slice, parts of the batch and chips of each, and a ceiling of GiB a chip.

A v5e has 15.75, a v6e 31.25, a v5p 95.
"""


def _inputs(mesh):
    """The model, and the shapes of weights and pages as a sampler places them."""
    model = Model(
        ModelConfig(
            vocab_size=151_936,
            hidden_size=WIDTH,
            intermediate_size=12_288,
            num_layers=LAYERS,
            num_heads=32,
            num_kv_heads=KV_HEADS,
            head_dim=HEAD,
            rope_theta=1e6,
            tie_word_embeddings=False,
            max_position_embeddings=40_960,
            dtype="bfloat16",
        ),
        mesh,
    )
    params = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, jnp.bfloat16, sharding=place
        ),
        params,
        weights_layout(model, params),
    )
    parts = batch_parts(mesh)
    count = LAYERS * (1 + SLOTS * LONGEST // PAGE // parts)
    pages = jax.ShapeDtypeStruct(
        (parts, count, PAGE, 2 * KV_HEADS, HEAD),
        jnp.bfloat16,
        sharding=pages_sharding(mesh),
    )
    return model, params, pages


def _array(mesh, *shape, dtype=jnp.int32):
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.ShapeDtypeStruct(shape, dtype, sharding=whole)


def _check(compiled, pages, ceiling):
    """It fits, and pages are updated in place; shapes of what devices exchange."""
    memory = compiled.memory_analysis()
    held = 2 * pages.size // pages.sharding.mesh.size
    assert memory.peak_memory_in_bytes / GIB < ceiling
    assert memory.alias_size_in_bytes >= held
    # No second copy of a layer's pages, let alone of all.
    assert memory.temp_size_in_bytes < held / LAYERS + GIB / 2
    text = compiled.as_text()
    assert "tpu_custom_call" in text
    kinds = "all-gather|all-reduce|all-to-all|collective-permute"
    moved = re.findall(rf"= (.*?) (?:{kinds})(?:-start)?\(", text)
    assert moved
    shapes = [shape for one in moved for shape in re.findall(r"\w\[([\d,]*)\]", one)]
    return [[int(size) for size in shape.split(",") if size] for shape in shapes]


@pytest.mark.parametrize("chip", CHIPS)
def test_a_step_of_64_slots_fits_and_moves_rows_alone(chip, record_property):
    topology, (parts, chips), ceiling = CHIPS[chip]
    mesh = tpu_losses.mesh_on(topology, fsdp=parts, tensor=chips)
    model, params, pages = _inputs(mesh)
    columns = LONGEST // PAGE
    row = _array(mesh, SLOTS)
    slots = Slots(
        token=row,
        length=row,
        number=row,
        budget=row,
        active=_array(mesh, SLOTS, dtype=jnp.bool_),
        temperature=_array(mesh, SLOTS, dtype=jnp.float32),
        keys=_array(mesh, SLOTS, 2, dtype=jnp.uint32),
        tables=_array(mesh, SLOTS, columns),
    )
    compiled = (
        decode_program(model, SAMPLING, STEPS)
        .lower(params, pages, slots, _array(mesh), _array(mesh, dtype=jnp.bool_))
        .compile()
    )
    shapes = _check(compiled, pages, ceiling)
    # The residual stream of each row; no weight, no page and no row of logits.
    assert max(map(math.prod, shapes)) <= SLOTS * WIDTH
    peak = compiled.memory_analysis().peak_memory_in_bytes / GIB
    record_property(chip, {"peak": peak})


def test_pages_of_prompts_on_eight_small_chips():
    """Eight pages of prompts in one go."""
    topology, (_, chips), ceiling = CHIPS["v5e"]
    mesh = tpu_losses.mesh_on(topology, tensor=chips)
    model, params, pages = _inputs(mesh)
    row = _array(mesh, BLOCKS)
    blocks = Blocks(
        tokens=_array(mesh, BLOCKS, PAGE),
        starts=row,
        tables=_array(mesh, BLOCKS, LONGEST // PAGE),
        ends=row,
        keys=_array(mesh, BLOCKS, 2, dtype=jnp.uint32),
        numbers=row,
        temperature=_array(mesh, BLOCKS, dtype=jnp.float32),
    )
    compiled = prefill_program(model, SAMPLING).lower(params, pages, blocks).compile()
    shapes = _check(compiled, pages, ceiling)
    assert max(map(math.prod, shapes)) <= BLOCKS * PAGE * WIDTH
