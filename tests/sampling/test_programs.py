"""What the compiled programs hold beside the pages: no second copy of them."""

import jax
import jax.numpy as jnp
import pytest

from fdjax.sampling import SamplingConfig
from fdjax.sampling.programs import Blocks, Slots, decode_program, prefill_program
from tiny import MODEL

PAGE, COLUMNS, ROWS = 16, 8, 4
SAMPLING = SamplingConfig(max_new_tokens=8, stop_tokens=(3,))


def array(*shape, dtype=jnp.int32):
    return jax.ShapeDtypeStruct(shape, dtype)


def blocks(count):
    row = array(count)
    return Blocks(
        tokens=array(count, PAGE),
        starts=row,
        tables=array(count, COLUMNS),
        ends=row,
        keys=array(count, 2, dtype=jnp.uint32),
        numbers=row,
        temperature=array(count, dtype=jnp.float32),
    )


def slots():
    row = array(ROWS)
    return Slots(
        token=row,
        length=row,
        number=row,
        budget=row,
        active=array(ROWS, dtype=jnp.bool_),
        temperature=array(ROWS, dtype=jnp.float32),
        keys=array(ROWS, 2, dtype=jnp.uint32),
        tables=array(ROWS, COLUMNS),
    )


@pytest.mark.parametrize("what", [1, 2, 4, "slots"])
def test_pages_are_written_in_place(what):
    pages = jax.eval_shape(lambda: MODEL.init_pages(4096, PAGE))
    params = jax.eval_shape(MODEL.init, jax.random.key(0))
    if what == "slots":
        program = decode_program(MODEL, SAMPLING, 8)
        lowered = program.lower(params, pages, slots(), array(), array(dtype=jnp.bool_))
    else:
        program = prefill_program(MODEL, SAMPLING)
        lowered = program.lower(params, pages, blocks(what))
    memory = lowered.compile().memory_analysis()
    [held] = jax.tree.leaves(pages)
    size = held.size * held.dtype.itemsize
    assert memory.alias_size_in_bytes == size
    assert memory.temp_size_in_bytes < size / 4
