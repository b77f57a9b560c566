"""Rows stay on their devices: what a compiled pass exchanges says so."""

import math
import re

import jax
import jax.numpy as jnp
import pytest

from fdjax.model import Model
from fdjax.sharding import batch_sharding, shardings
from tiny import MODEL, mesh_of

ROWS, LENGTH = 8, 15
WIDTH = MODEL.config.hidden_size


def _moved(model, mesh):
    """Sizes of the arrays of numbers that devices exchange, forward and backward."""
    params = jax.eval_shape(MODEL.init, jax.random.key(0))
    layout = shardings(mesh, MODEL.logical_axes(), params)
    rows = batch_sharding(mesh)

    def loss(params, tokens, valid):
        return model.hidden(params, tokens, valid=valid).sum()

    tokens = jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.int32)
    valid = jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.bool_)
    compiled = (
        jax.jit(jax.grad(loss), in_shardings=(layout, rows, rows), out_shardings=layout)
        .lower(params, tokens, valid)
        .compile()
    )
    for result in re.findall(
        r"= (.*?) (?:all|reduce|collective)-[a-z-]+\(", compiled.as_text()
    ):
        for shape in re.findall(r"\bf32\[([\d,]*)\]", result):
            yield math.prod(int(size) for size in shape.split(",") if size)


@pytest.mark.parametrize("spread", [True, False])
def test_activations_are_never_those_of_all_rows(spread):
    """Where nothing is said, the compiler adds up all rows on all devices."""
    mesh = mesh_of(fsdp=8)
    model = Model(MODEL.config, mesh if spread else None)
    assert (ROWS * LENGTH * WIDTH in set(_moved(model, mesh))) is not spread
