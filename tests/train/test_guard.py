"""Steps that are not taken: values that are not finite, and nothing to score."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fdjax.errors import CheckpointError, ConfigError
from fdjax.records import Mean
from fdjax.train import (
    EMATeacher,
    Needs,
    Objective,
    OptimizerConfig,
    init_state,
    make_optimizer,
    make_train_step,
    restart,
)
from tiny import MODEL, mesh_of

ADAM = make_optimizer(OptimizerConfig(learning_rate=0.1, weight_decay=0.1))


class Batch(NamedTuple):
    values: Any
    """[B] float32; each is the gradient of its row by every parameter."""
    mask: Any
    """[B, T] bool."""


def batch(**changes):
    """Eight rows of ones with two scored tokens each, some of them changed."""
    values = np.ones(8, np.float32)
    for row, value in changes.get("values", {}).items():
        values[row] = value
    return Batch(values, np.full((8, 2), changes.get("scored", True)))


def linear(params, teacher, batch, normalizer, step):
    """Σ_b v_b Σ θ / Z, and a metric that is NaN where a value is."""
    del step
    total = sum(leaf.sum() for leaf in jax.tree.leaves(params))
    if teacher is not None:
        total += sum(leaf.sum() for leaf in jax.tree.leaves(teacher))
    loss = batch.values.sum() * total / normalizer
    scored = batch.mask.sum().astype(jnp.float32)
    return loss, {"test/values": Mean(batch.values.sum(), scored)}


@functools.cache
def made(loss=linear, optimizer=ADAM, on=(1, 1, 1), microbatches=1, teacher=True):
    """State after one good step, and a step that leaves it alone."""
    mesh = mesh_of(*on)
    jitted = make_train_step(
        MODEL,
        Objective(loss, Needs(teacher=frozenset({"nothing"} if teacher else ()))),
        optimizer,
        mesh,
        teacher=EMATeacher(rate=0.5) if teacher else None,
        microbatches=microbatches,
    )

    def step(state, batch):
        state, metrics = jitted(jax.tree.map(jnp.copy, state), batch)
        return state, {name: mean.value() for name, mean in metrics.items()}

    state = init_state(
        MODEL,
        optimizer,
        mesh,
        jax.random.key(0),
        teacher=EMATeacher(rate=0.5) if teacher else None,
    )
    return state, step


def bits(state):
    """All that a step which is not taken must leave alone."""
    kept = (state.params, state.opt_state, state.teacher)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(kept)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 7])
@pytest.mark.parametrize(
    "layout", [{}, {"microbatches": 4}, {"on": (2, 2, 2), "microbatches": 2}]
)
def test_a_value_that_is_not_finite_changes_nothing_but_the_step(layout, row, value):
    start, step = made(**layout)
    state, _ = step(start, batch())
    assert bits(state) != bits(start)
    skipped, metrics = step(state, batch(values={row: value}))
    assert bits(skipped) == bits(state)
    assert int(skipped.step) == 2
    assert metrics["train/skipped"] == 1.0
    assert metrics["train/empty"] == 0.0
    assert metrics["train/scored_tokens"] == 16.0
    for name in ("train/loss", "train/gradient_norm", "test/values"):
        assert np.isnan(metrics[name]), name
    after, metrics = step(skipped, batch())
    again, _ = step(state, batch())
    assert bits(after) == bits(again)
    assert metrics["train/skipped"] == 0.0
    assert metrics["test/values"] == 0.5


def test_a_loss_that_is_finite_does_not_excuse_its_gradient():
    def root(params, *rest):
        loss, metrics = linear(params, *rest)
        first = jax.tree.leaves(params)[0]
        return loss + jnp.sqrt(jnp.abs(0.0 * first)).sum(), metrics

    start, step = made(root)
    state, metrics = step(start, batch())
    assert bits(state) == bits(start)
    assert metrics["train/skipped"] == 1.0


def test_an_update_that_overflows_is_not_taken():
    """Loss and gradient, 263/16, are finite; times 3e38 it is more than float32 has."""
    start, step = made(optimizer=optax.sgd(3e38), teacher=False)
    state, metrics = step(start, batch(values={0: 256.0}))
    assert bits(state) == bits(start)
    assert metrics["train/skipped"] == 1.0


@pytest.mark.parametrize("layout", [{}, {"on": (8, 1, 1)}])
def test_nothing_scored_changes_nothing_but_the_step(layout):
    """Neither moments nor weight decay move a parameter."""
    start, step = made(**layout)
    state, _ = step(start, batch())
    empty, metrics = step(state, batch(scored=False))
    assert bits(empty) == bits(state)
    assert int(empty.step) == 2
    assert metrics["train/empty"] == 1.0
    assert metrics["train/skipped"] == 0.0
    assert metrics["train/scored_tokens"] == 0.0
    assert np.isnan(metrics["train/loss"])
    # NaN beside it changes nothing: it is counted once.
    _, metrics = step(state, batch(scored=False, values={3: np.nan}))
    assert (metrics["train/empty"], metrics["train/skipped"]) == (1.0, 0.0)


def test_rows_that_do_not_divide_are_named():
    four = mesh_of(2, 2, 1)
    step = make_train_step(MODEL, Objective(linear), ADAM, four, microbatches=3)
    state = init_state(MODEL, ADAM, four, jax.random.key(0))
    named = r"divide by 12 = 4 devices \(\{'data': 2, 'fsdp': 2\}\) × 3 micro.*got 8"
    with pytest.raises(ConfigError, match=named):
        step(state, batch())


def test_parameters_to_begin_from_are_finite():
    params = MODEL.init(jax.random.key(0))
    params["layers"]["mlp"]["down"] = params["layers"]["mlp"]["down"].at[0].set(np.nan)
    with pytest.raises(CheckpointError, match="infinity in layers/mlp/down;"):
        restart(params, MODEL, ADAM, mesh_of(), jax.random.key(1))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_parameters_to_begin_from_are_float32(dtype):
    params = MODEL.init(jax.random.key(0))
    params["embedding"] = params["embedding"].astype(dtype)
    with pytest.raises(ConfigError, match=f"got {dtype}.*param_dtype='float32'"):
        restart(params, MODEL, ADAM, mesh_of(), jax.random.key(1))
