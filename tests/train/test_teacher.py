"""How each teacher follows the policy, by values computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.errors import ConfigError
from fdjax.train import (
    FD,
    BaseTeacher,
    EMATeacher,
    LiveTeacher,
    OptimizerConfig,
    SyncedTeacher,
    init_state,
    init_teacher,
    make_objective,
    make_optimizer,
    make_train_step,
    update_teacher,
)
from tiny import MODEL, distillation_data, mesh_of


def followed(teacher, policies, taken=None):
    """The teacher's one weight after each step, beside that of the policy."""
    weights = init_teacher({"w": jnp.float32([policies[0]])}, teacher)
    after = []
    for step, policy in enumerate(policies[1:], 1):
        weights = update_teacher(
            weights,
            {"w": jnp.float32([policy])},
            teacher,
            step=jnp.int32(step),
            taken=jnp.bool_(taken is None or taken[step - 1]),
        )
        after.append(float(weights["w"][0]))
    return after


def test_base():
    assert followed(BaseTeacher(), [1, 2, 3]) == [1, 1]


def test_ema():
    # 1 + (3 - 1)/4 = 1.5, 1.5 + (3.5 - 1.5)/4 = 2.
    assert followed(EMATeacher(rate=0.25), [1, 3, 3.5]) == [1.5, 2.0]
    # A step that is not taken moves no average.
    taken = [False, True]
    assert followed(EMATeacher(rate=0.25), [1, 3, 3], taken) == [1.0, 1.5]


def test_synced():
    assert followed(SyncedTeacher(every=2), [1, 2, 3, 4, 5]) == [1, 3, 3, 5]
    # A copy that is due is made of whatever policy there is.
    taken = [True, False, True]
    assert followed(SyncedTeacher(every=2), [1, 2, 2, 4], taken) == [1, 2, 2]
    # 257 has nine significant bits, and bfloat16 eight.
    assert followed(SyncedTeacher(every=1, dtype="bfloat16"), [1, 257]) == [256]


def test_live_holds_nothing():
    assert init_teacher({"w": jnp.ones(1)}, LiveTeacher()) is None
    assert init_teacher({"w": jnp.ones(1)}, None) is None


def test_a_teacher_that_is_frozen_outlives_a_policy_that_is_not_finite():
    for teacher in (BaseTeacher(), EMATeacher()):
        assert followed(teacher, [1, np.nan], [False]) == [1]


def test_why_an_average_in_bfloat16_is_refused():
    """At a rate of 1/20 it stands still 1/32 from where it should go."""
    old, new = jnp.bfloat16(1), jnp.bfloat16(1 + 1 / 32)
    assert old + jnp.bfloat16(0.05) * (new - old) == old
    with pytest.raises(ConfigError, match=r"less than one part in 25\.6"):
        EMATeacher(rate=0.05, dtype="bfloat16")


def stepped(teacher, steps=3):
    """State and losses of a short run; one compilation."""
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2))
    state = init_state(MODEL, optimizer, mesh_of(), jax.random.key(0), teacher=teacher)
    objective = make_objective(MODEL, (FD(importance_cap=None),))
    step = make_train_step(MODEL, objective, optimizer, mesh_of(), teacher=teacher)
    losses = []
    for seed in range(steps):
        state, metrics = step(state, distillation_data(seed=seed))
        losses.append(metrics["train/loss"].value())
    return state, losses


def test_a_live_teacher_is_one_that_is_synced_after_each_step():
    """Its gradient is stopped, and the state holds no copy."""
    live, losses = stepped(LiveTeacher())
    synced, same = stepped(SyncedTeacher(every=1))
    assert live.teacher is None
    np.testing.assert_allclose(losses, same, rtol=1e-6)
    for one, other in zip(
        jax.tree.leaves(live.params), jax.tree.leaves(synced.params), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_teacher_in_bfloat16_takes_half_the_memory():
    state, losses = stepped(BaseTeacher(dtype="bfloat16"), steps=1)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(state.params)) == 2 * sum(
        leaf.nbytes for leaf in jax.tree.leaves(state.teacher)
    )
    assert losses[0] > 0
