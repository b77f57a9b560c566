import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.errors import ConfigError
from fdjax.train import (
    OptimizerConfig,
    fd_objective,
    init_state,
    make_optimizer,
    make_train_step,
    restart,
)
from tiny import MODEL, distillation_data, mesh_of

OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=1e-2))


def run(steps=3, *, rate=0.25, on=None, **settings):
    on = on or mesh_of()
    state = init_state(MODEL, OPTIMIZER, on, jax.random.key(0))
    step = make_train_step(
        MODEL, fd_objective(MODEL), OPTIMIZER, on, teacher_rate=rate, **settings
    )
    history = []
    for index in range(steps):
        state, metrics = step(state, distillation_data(seed=index))
        history.append({name: mean.value() for name, mean in metrics.items()})
    return state, history


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize(
    "axes", [{"data": 8}, {"data": 2, "fsdp": 4}, {"data": 2, "fsdp": 2, "tensor": 2}]
)
def test_eight_devices_equal_one(axes):
    one, history_one = run()
    eight, history_eight = run(on=mesh_of(**axes))
    for first, second in zip(history_one, history_eight, strict=True):
        assert first.keys() == second.keys()
        for name in first:
            assert second[name] == pytest.approx(first[name], rel=2e-5, abs=1e-6), name
    # Adam divides by the root of tiny squares: rounding shows at the learning rate's
    # scale before anything else.
    for first, second in zip(leaves(one.params), leaves(eight.params), strict=True):
        np.testing.assert_allclose(second, first, rtol=0, atol=1e-2 * 0.02)


def test_parameters_and_moments_are_sharded():
    state = init_state(MODEL, OPTIMIZER, mesh_of(fsdp=8), jax.random.key(0))
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
    before = init_state(MODEL, OPTIMIZER, mesh_of(), jax.random.key(0))
    old = leaves(before.teacher)
    after, _ = run(1, rate=0.25)
    for start, new, teacher in zip(
        old, leaves(after.params), leaves(after.teacher), strict=True
    ):
        expected = 0.75 * start.astype(np.float64) + 0.25 * new.astype(np.float64)
        np.testing.assert_allclose(teacher, expected, rtol=1e-6, atol=1e-7)
        assert teacher.dtype == np.float32


def test_frozen_teacher_stays():
    start = leaves(init_state(MODEL, OPTIMIZER, mesh_of(), jax.random.key(0)).params)
    after, _ = run(2, rate=0.0)
    for first, second in zip(start, leaves(after.teacher), strict=True):
        np.testing.assert_array_equal(first, second)


def test_equal_prompts_and_weights_give_zero_loss():
    """The teacher starts as the policy: without extra context nothing to distil."""
    batch = distillation_data()
    batch = batch._replace(
        teacher_prompts=batch.prompts, teacher_prompt_valid=batch.prompt_valid
    )
    state = init_state(MODEL, OPTIMIZER, mesh_of(), jax.random.key(0))
    step = make_train_step(MODEL, fd_objective(MODEL), OPTIMIZER, mesh_of())
    _, metrics = step(state, batch)
    assert metrics["train/loss"].value() == pytest.approx(0.0, abs=1e-6)


def test_a_batch_without_scored_tokens_changes_nothing_but_the_step():
    batch = distillation_data()
    batch = batch._replace(mask=np.zeros_like(batch.mask))
    state = init_state(MODEL, OPTIMIZER, mesh_of(), jax.random.key(0))
    before = leaves(state.params)
    step = make_train_step(MODEL, fd_objective(MODEL), OPTIMIZER, mesh_of())
    state, metrics = step(state, batch)
    assert metrics["train/loss"].value() == 0.0
    assert int(state.step) == 1
    for first, second in zip(before, leaves(state.params), strict=True):
        np.testing.assert_array_equal(first, second)


def test_restart_keeps_the_callers_parameters():
    on = mesh_of()
    first, _ = run(1)
    state = restart(first.params, MODEL, OPTIMIZER, on, jax.random.key(1))
    kept = leaves(first.params)
    step = make_train_step(MODEL, fd_objective(MODEL), OPTIMIZER, on)
    state, _ = step(state, distillation_data())
    for before, after in zip(kept, leaves(first.params), strict=True):
        np.testing.assert_array_equal(before, after)
    assert int(state.step) == 1
    assert jnp.issubdtype(state.key.dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize("settings", [{"teacher_rate": 1.5}, {"microbatches": 0}])
def test_bad_settings(settings):
    with pytest.raises(ConfigError):
        make_train_step(MODEL, fd_objective(MODEL), OPTIMIZER, mesh_of(), **settings)
