"""Steps of Feedback Distillation that train adapters on a frozen base.

Takes half a minute of processor time: the step is compiled for three meshes, and runs
of it stop and go on.
"""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.checkpoint.orbax_tree import STATE, OrbaxTree
from fdjax.errors import CheckpointError, ConfigError
from fdjax.metrics import MetricsWriter, SampleWriter
from fdjax.model import LoRA, Model, ModelConfig, adapt, merge
from fdjax.sharding import init_sharded
from fdjax.train import (
    FD,
    BaseTeacher,
    CheckpointsConfig,
    EMATeacher,
    LiveTeacher,
    OptimizerConfig,
    PhaseConfig,
    StepData,
    StoppedError,
    StopRequest,
    init_state,
    make_objective,
    make_optimizer,
    make_train_step,
    restart,
    train_phases,
)
from tiny import MODEL, distillation_data, mesh_of

LORA = LoRA(rank=2, alpha=4.0, base_dtype="float32")
SETTINGS = OptimizerConfig(learning_rate=1e-2)
OPTIMIZER = make_optimizer(SETTINGS)
DISTILLATION = make_objective(MODEL, (FD(importance_cap=None),))


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def assert_same(first, second):
    for one, other in zip(leaves(first), leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)


def memory(tree):
    """Where each array's bytes are, on the one device."""
    return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)]


def step_with(teacher, mesh, **settings):
    return make_train_step(
        MODEL, DISTILLATION, OPTIMIZER, mesh, teacher=teacher, lora=LORA, **settings
    )


@functools.cache
def run(steps=3, *, on=(1, 1, 1), microbatches=1):
    """A short run on a mesh of data, fsdp and tensor: start, states after, metrics."""
    mesh, teacher = mesh_of(*on), EMATeacher(rate=0.25)
    state = init_state(
        MODEL, OPTIMIZER, mesh, jax.random.key(0), teacher=teacher, lora=LORA
    )
    step = step_with(teacher, mesh, microbatches=microbatches)
    states, history = [jax.tree.map(jnp.copy, state)], []
    for index in range(steps):
        state, metrics = step(state, distillation_data(seed=index))
        states.append(jax.tree.map(jnp.copy, state))
        history.append({name: mean.value() for name, mean in metrics.items()})
    return states, history


def test_the_base_stands_still_and_the_adapters_move():
    states, _ = run()
    for state in states[1:]:
        assert_same(states[0].base, state.base)
    # While B is 0 the gradient by A is 0 as well.
    for name, moved in (("a", [False, True]), ("b", [True, True])):
        for state, before, expected in zip(states[1:3], states, moved, strict=False):
            for adapter, old in zip(
                *(
                    [
                        part
                        for module in tree.params["layers"].values()
                        for part in module.values()
                    ]
                    for tree in (state, before)
                ),
                strict=True,
            ):
                changed = np.any(getattr(adapter, name) != getattr(old, name))
                assert changed == expected, name


def test_the_teacher_is_the_moving_average_of_the_adapters():
    states, _ = run()
    for before, after in itertools.pairwise(states):
        for old, new, teacher in zip(
            leaves(before.teacher),
            leaves(after.params),
            leaves(after.teacher),
            strict=True,
        ):
            expected = 0.75 * old.astype(np.float64) + 0.25 * new.astype(np.float64)
            np.testing.assert_allclose(teacher, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("axes", [(2, 4, 1), (1, 4, 2)])
def test_eight_devices_equal_one(axes):
    one, history_one = run()
    eight, history_eight = run(on=axes)
    for first, second in zip(history_one, history_eight, strict=True):
        assert first.keys() == second.keys()
        for name in first:
            assert second[name] == pytest.approx(first[name], rel=2e-5, abs=1e-6), name
    # As for all parameters (test_step): rounding shows at Adam's scale first.
    for first, second in zip(
        leaves(one[-1].params), leaves(eight[-1].params), strict=True
    ):
        np.testing.assert_allclose(second, first, rtol=0, atol=1e-2 * 0.02)
    query = eight[-1].params["layers"]["attention"]["query"]
    assert query.a.addressable_shards[0].data.shape == (2, 16 // axes[1], 2)
    assert query.b.addressable_shards[0].data.shape == (2, 2, 2 // axes[2], 8)


def test_microbatches_add_up():
    _, whole = run()
    _, parts = run(microbatches=2)
    for first, second in zip(whole, parts, strict=True):
        assert second["train/loss"] == pytest.approx(first["train/loss"], rel=1e-5)
        assert second["train/gradient_norm"] == pytest.approx(
            first["train/gradient_norm"], rel=1e-5
        )


def test_the_loss_is_that_of_the_merged_weights():
    """The objective knows nothing of adapters: give it whole parameters instead."""
    states, history = run()
    before, batch = states[1], distillation_data(seed=1)
    batch = jax.tree.map(jnp.asarray, batch)
    loss, _ = jax.jit(DISTILLATION.loss)(
        merge(before.policy),
        merge(before.teacher_policy),
        batch,
        DISTILLATION.normalizers(batch),
        before.step,
    )
    assert history[1]["train/loss"] == pytest.approx(float(loss), rel=1e-4)


def test_a_base_teacher_is_the_base_and_a_live_one_the_policy():
    mesh = mesh_of()
    base = init_sharded(mesh, MODEL.init, MODEL.logical_axes(), jax.random.key(0))
    start = functools.partial(
        restart, base, MODEL, OPTIMIZER, mesh, jax.random.key(1), lora=LORA
    )
    frozen = start(teacher=BaseTeacher())
    assert_same(merge(frozen.teacher_policy), base)
    assert memory(frozen.base) == memory(base)
    first = leaves(frozen.teacher)
    after, _ = step_with(BaseTeacher(), mesh)(frozen, distillation_data())
    assert memory(after.base) == memory(base)
    assert_same(after.teacher, first)
    assert_same(merge(after.teacher_policy), base)
    live = start(teacher=LiveTeacher())
    assert live.teacher is None
    assert_same(live.teacher_policy, live.policy)


def test_a_state_and_a_step_are_of_one_kind():
    mesh, teacher = mesh_of(), LiveTeacher()
    whole = init_state(MODEL, OPTIMIZER, mesh, jax.random.key(0), teacher=teacher)
    with pytest.raises(ConfigError, match="Expected a state with a base"):
        step_with(teacher, mesh)(whole, distillation_data())
    based = init_state(
        MODEL, OPTIMIZER, mesh, jax.random.key(0), teacher=teacher, lora=LORA
    )
    step = make_train_step(MODEL, DISTILLATION, OPTIMIZER, mesh, teacher=teacher)
    with pytest.raises(ConfigError, match="Expected a state without a base"):
        step(based, distillation_data())


@pytest.mark.parametrize("microbatches", [1, 2])
def test_no_gradient_has_the_size_of_a_weight(microbatches):
    """Few tokens, so that the compiled step's memory is that of its weights."""
    model = Model(
        ModelConfig(
            vocab_size=304,
            hidden_size=128,
            intermediate_size=512,
            num_layers=8,
            num_heads=2,
            num_kv_heads=2,
            head_dim=8,
            max_position_embeddings=128,
        )
    )
    teacher, mesh = LiveTeacher(), mesh_of()
    objective = make_objective(model, (FD(importance_cap=None),))
    weights = 4 * 8 * 3 * 128 * 512  # bytes of the feed-forward layers

    def temporary(lora):
        state = jax.eval_shape(
            lambda key: init_state(
                model, OPTIMIZER, mesh, key, teacher=teacher, lora=lora
            ),
            jax.random.key(0),
        )
        step = make_train_step(
            model,
            objective,
            OPTIMIZER,
            mesh,
            teacher=teacher,
            lora=lora,
            microbatches=microbatches,
        )
        batch = distillation_data(rows=2)
        lowered = step.__wrapped__.lower(state._replace(base=None), state.base, batch)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(None) > weights
    assert temporary(LORA) < weights / 4


class Given:
    """Batches of random tokens."""

    def __init__(self):
        self.calls = 0

    def next(self, state, timer):
        self.calls += 1
        return StepData(batches=[distillation_data(seed=self.calls)], metrics={})

    def get_state(self):
        return {"calls": self.calls}

    def set_state(self, state):
        self.calls = state["calls"]


def phases():
    first = PhaseConfig(
        name="fd",
        terms=(FD(importance_cap=None),),
        steps=3,
        optimizer=SETTINGS,
        teacher=EMATeacher(rate=0.25),
    )
    second = PhaseConfig(
        name="more",
        terms=(FD(importance_cap=None),),
        steps=1,
        optimizer=SETTINGS,
        teacher=EMATeacher(rate=0.25),
        keep_teacher=True,
    )
    return first, second


def train(folder, *, stop_after=None, lora=LORA, seed=0):
    stop = StopRequest()

    def on_step(name, done, metrics):
        stop.requested |= (name, done) == stop_after

    folder.mkdir(exist_ok=True)
    with (
        MetricsWriter(folder / "metrics.jsonl") as writer,
        SampleWriter(folder / "samples.jsonl") as samples,
    ):
        return train_phases(
            phases(),
            jax.jit(MODEL.init)(jax.random.key(seed)),
            model=MODEL,
            mesh=mesh_of(),
            key=jax.random.key(3),
            source=lambda phase: Given(),
            directory=folder / "checkpoints",
            writer=writer,
            samples=samples,
            stop=stop,
            lora=lora,
            run="run",
            checkpoints=CheckpointsConfig(every=1),
            on_step=on_step,
        )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped after two steps."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(StoppedError):
        train(folder, stop_after=("fd", 2))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, r"fd/2 to be of adapters on the base \w+, got adapters on the"),
        ({"lora": LoRA(rank=2, alpha=8.0)}, "got adapters on the base"),
        ({"lora": None}, "to be of all parameters, got adapters on the base"),
        ({"lora": LoRA(rank=3, alpha=6.0)}, "does not fit this run"),
    ],
    ids=["base", "alpha", "no-lora", "rank"],
)
def test_adapters_go_on_where_they_were_trained_alone(stopped, changes, said):
    with pytest.raises(CheckpointError, match=said):
        train(stopped, **changes)


def test_a_resumed_run_takes_the_same_steps(stopped, tmp_path):
    straight = train(tmp_path / "straight")
    resumed = train(stopped)
    for name in ("params", "opt_state", "teacher", "step", "base"):
        assert_same(getattr(straight, name), getattr(resumed, name))
    # A checkpoint holds the adapters and says which base they are on.
    saved = stopped / "checkpoints" / "fd" / "3"
    host = json.loads((saved / "host" / "metadata").read_text())["host"]
    assert len(host["base"]) == 16
    tree = OrbaxTree(saved / STATE)
    assert not tree.holds("base")
    assert tree.shape(("params", "layers", "mlp", "down", "a")) == (2, 32, 2)


def test_the_policy_is_the_base_with_adapters_on():
    state = run()[0][-1]
    assert_same(state.policy, adapt(state.base, state.params))
    assert_same(state.teacher_policy, adapt(state.base, state.teacher))
