import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.errors import ConfigError
from fdjax.train import (
    FD,
    SFT,
    BaseTeacher,
    EMATeacher,
    LiveTeacher,
    OptimizerConfig,
    init_state,
    make_objective,
    make_optimizer,
    make_train_step,
    restart,
)
from tiny import MODEL, distillation_data, mesh_of

OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=1e-2))
DISTILLATION = make_objective(MODEL, (FD(importance_cap=None),))
IMITATION = make_objective(MODEL, (SFT(),))


@functools.cache
def start_of(teacher, on=(1, 1, 1)):
    """A fresh state on a mesh of data, fsdp and tensor."""
    mesh = mesh_of(*on)
    return init_state(MODEL, OPTIMIZER, mesh, jax.random.key(0), teacher=teacher)


@functools.cache
def step_of(teacher, on=(1, 1, 1), microbatches=1):
    """Its step; the caller's state would be donated, so it is copied."""
    step = make_train_step(
        MODEL,
        DISTILLATION,
        OPTIMIZER,
        mesh_of(*on),
        teacher=teacher,
        microbatches=microbatches,
    )
    return lambda state, batch: step(jax.tree.map(jnp.copy, state), batch)


@functools.cache
def run(steps=3, *, on=(1, 1, 1), microbatches=1):
    """A short run; compiled once for all tests."""
    teacher = EMATeacher(rate=0.25)
    state, step = start_of(teacher, on), step_of(teacher, on, microbatches)
    history = []
    for index in range(steps):
        state, metrics = step(state, distillation_data(seed=index))
        history.append({name: mean.value() for name, mean in metrics.items()})
    return state, history


def one_device():
    """Start and step on one device, with a teacher that stays."""
    return start_of(BaseTeacher()), step_of(BaseTeacher())


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("axes", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_eight_devices_equal_one(axes):
    one, history_one = run()
    eight, history_eight = run(on=axes)
    for first, second in zip(history_one, history_eight, strict=True):
        assert first.keys() == second.keys()
        for name in first:
            assert second[name] == pytest.approx(first[name], rel=2e-5, abs=1e-6), name
    # Adam divides by the root of tiny squares: rounding shows at the learning rate's
    # scale before anything else.
    for first, second in zip(leaves(one.params), leaves(eight.params), strict=True):
        np.testing.assert_allclose(second, first, rtol=0, atol=1e-2 * 0.02)


def test_parameters_and_moments_are_sharded():
    state, _ = run(on=(2, 4, 1))
    for tree in (state.params, state.teacher, state.opt_state):
        sizes = [
            (leaf.size, leaf.addressable_shards[0].data.size)
            for leaf in jax.tree.leaves(tree)
        ]
        assert sum(local for _, local in sizes) < sum(full for full, _ in sizes) / 2


def test_microbatches_add_up():
    _, whole = run()
    _, parts = run(microbatches=4)
    for first, second in zip(whole, parts, strict=True):
        assert second["train/loss"] == pytest.approx(first["train/loss"], rel=1e-5)
        assert second["train/gradient_norm"] == pytest.approx(
            first["train/gradient_norm"], rel=1e-5
        )


def test_teacher_is_the_moving_average_of_the_policy():
    before, _ = one_device()
    after, _ = run(1)
    for start, new, teacher in zip(
        leaves(before.teacher), leaves(after.params), leaves(after.teacher), strict=True
    ):
        expected = 0.75 * start.astype(np.float64) + 0.25 * new.astype(np.float64)
        np.testing.assert_allclose(teacher, expected, rtol=1e-6, atol=1e-7)
        assert teacher.dtype == np.float32


def test_frozen_teacher_stays():
    start, step = one_device()
    state = start
    for seed in range(2):
        state, _ = step(state, distillation_data(seed=seed))
    for first, second in zip(leaves(start.params), leaves(state.teacher), strict=True):
        np.testing.assert_array_equal(first, second)
    assert any(
        (first != second).any()
        for first, second in zip(
            leaves(start.params), leaves(state.params), strict=True
        )
    )


def test_equal_prompts_and_weights_give_zero_loss():
    """The teacher starts as the policy: without extra context nothing to distil."""
    batch = distillation_data()
    same = batch._replace(
        feedback=batch.feedback._replace(
            prompts=batch.prompts, valid=batch.prompt_valid
        )
    )
    start, step = one_device()
    _, metrics = step(start, same)
    assert metrics["train/loss"].value() == pytest.approx(0.0, abs=1e-6)
    _, metrics = step(start, batch)
    assert metrics["train/loss"].value() > 1e-3


def test_restart_keeps_the_callers_parameters():
    first, _ = run(1)
    kept = leaves(first.params)
    state = restart(
        first.params,
        MODEL,
        OPTIMIZER,
        mesh_of(),
        jax.random.key(1),
        teacher=BaseTeacher(),
    )
    consume = jax.jit(
        lambda tree: jax.tree.map(lambda x: x * 2, tree), donate_argnums=0
    )
    consume((state.params, state.teacher))
    for before, after in zip(kept, leaves(first.params), strict=True):
        np.testing.assert_array_equal(before, after)
    assert int(state.step) == 0
    assert jnp.issubdtype(state.key.dtype, jax.dtypes.prng_key)


def test_a_mesh_that_does_not_fit_the_model_is_named():
    with pytest.raises(ConfigError, match=r"'kv_heads': 2.*'tensor': 8"):
        init_state(MODEL, OPTIMIZER, mesh_of(tensor=8), jax.random.key(0))


@pytest.mark.parametrize(
    ("objective", "teacher"), [(IMITATION, BaseTeacher()), (DISTILLATION, None)]
)
def test_a_teacher_is_given_where_it_is_read(objective, teacher):
    with pytest.raises(ConfigError, match="expected a teacher where the objective"):
        make_train_step(MODEL, objective, OPTIMIZER, mesh_of(), teacher=teacher)


def test_bad_settings():
    with pytest.raises(ConfigError, match="expected microbatches to be"):
        make_train_step(MODEL, DISTILLATION, OPTIMIZER, mesh_of(), microbatches=0)


@pytest.mark.parametrize(
    ("objective", "teacher", "held"),
    [
        (DISTILLATION, BaseTeacher(), True),
        (DISTILLATION, LiveTeacher(), False),
        (IMITATION, None, False),
    ],
)
def test_the_state_holds_a_teacher_where_one_is_read_and_is_no_live_one(
    objective, teacher, held
):
    step = make_train_step(MODEL, objective, OPTIMIZER, mesh_of(), teacher=teacher)
    other = None if held else BaseTeacher()
    wrong = start_of(other)
    with pytest.raises(ConfigError, match="without;" if held else "got one with;"):
        step(wrong, distillation_data())
