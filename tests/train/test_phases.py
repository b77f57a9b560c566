"""Phases in a row: what goes over, when, and after an interruption.

Takes half a minute of processor time, because each run builds the steps of two phases.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fdjax.errors import CheckpointError, ConfigError
from fdjax.metrics import MetricsWriter, SampleWriter, read_metrics
from fdjax.records import Mean
from fdjax.train import (
    FD,
    SFT,
    BaseTeacher,
    CheckpointsConfig,
    EMATeacher,
    LiveTeacher,
    OptimizerConfig,
    PhaseConfig,
    Plateau,
    StepData,
    StoppedError,
    StopRequest,
    SyncedTeacher,
    hand_over,
    init_state,
    make_optimizer,
    train_phases,
)
from fdjax.train import state as training_state
from tiny import MODEL, distillation_data, mesh_of

OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup_steps=3)
REWARDS = (0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
"""Of the iterations of a phase; they stop rising at the third."""


class Given:
    """Batches of random tokens, and rewards as listed."""

    def __init__(self):
        self.calls = 0

    def next(self, state, timer):
        self.calls += 1
        return StepData(
            batches=[distillation_data(seed=self.calls)],
            metrics={"reward/mean": Mean(REWARDS[self.calls - 1], 1)},
        )

    def get_state(self):
        return {"calls": self.calls}

    def set_state(self, state):
        self.calls = state["calls"]


@functools.cache
def start():
    return jax.jit(MODEL.init)(jax.random.key(0))


def phase(name, term=None, **changes):
    settings = {"steps": 2, "optimizer": OPTIMIZER}
    term = term or FD(importance_cap=None)
    return PhaseConfig(name=name, terms=(term,), **(settings | changes))


def run(folder, phases, *, stop_after=None):
    """The last state, and (phase, iteration) of each row."""
    stop = StopRequest()

    def on_step(name, done, metrics):
        stop.requested |= (name, done) == stop_after

    folder.mkdir(exist_ok=True)
    with (
        MetricsWriter(folder / "metrics.jsonl") as writer,
        SampleWriter(folder / "samples.jsonl") as samples,
    ):
        state = train_phases(
            phases,
            start(),
            model=MODEL,
            mesh=mesh_of(),
            key=jax.random.key(3),
            source=lambda phase: Given(),
            directory=folder / "checkpoints",
            writer=writer,
            samples=samples,
            stop=stop,
            run="run",
            checkpoints=CheckpointsConfig(every=3),
            on_step=on_step,
        )
    rows = read_metrics(folder / "metrics.jsonl")
    return state, [(row["arm"], row["step"]) for row in rows]


UNTIL = Plateau(window=1, least_gain=0.1, patience=2)
TWO = (
    phase(
        "fd",
        teacher=EMATeacher(rate=0.25),
        steps=8,
        until=UNTIL,
    ),
    phase("imitation", SFT()),
)


@pytest.fixture(scope="module")
def straight_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("straight")


@pytest.fixture(scope="module")
def straight(straight_folder):
    return run(straight_folder, TWO)


def assert_same_bits(first, second):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_phase_ends_where_its_metric_has_stopped_rising(straight):
    state, rows = straight
    # Two rows after the third do not raise the reward: the fifth is the last.
    assert rows == [
        *(("fd", step) for step in range(1, 6)),
        ("imitation", 1),
        ("imitation", 2),
    ]
    assert int(state.step) == 2
    assert state.teacher is None


@pytest.mark.parametrize("after", [("fd", 4), ("fd", 5)])
def test_interrupted_phases_go_on_to_the_same_bits(tmp_path, straight, after):
    with pytest.raises(StoppedError):
        run(tmp_path, TWO, stop_after=after)
    state, rows = run(tmp_path, TWO)
    assert rows == straight[1]
    assert_same_bits(state, straight[0])


def test_finished_phases_are_read_and_not_trained(straight_folder, straight):
    state, rows = run(straight_folder, TWO)
    assert rows == straight[1]
    assert_same_bits(state, straight[0])


def test_a_metric_that_no_row_has_is_named(tmp_path):
    wrong = phase("imitation", SFT(), until=Plateau(metric="reward/maen"))
    with pytest.raises(ConfigError, match=r"got 'reward/maen'; .*reward/mean"):
        run(tmp_path, [wrong])


def trained():
    """A state with moments, counts and a teacher that differ from a new one's."""
    return jax.tree.map(jnp.copy, _trained())


@functools.cache
def _trained():
    optimizer = make_optimizer(OPTIMIZER)
    state = init_state(
        MODEL, optimizer, mesh_of(), jax.random.key(0), teacher=EMATeacher()
    )
    ones = jax.tree.map(jnp.ones_like, state.params)
    _, opt_state = jax.jit(optimizer.update)(ones, state.opt_state, state.params)
    return state._replace(
        opt_state=opt_state,
        teacher=jax.tree.map(lambda leaf: leaf + 1.0, state.params),
        step=jnp.int32(7),
    )


def handed_over(config=OPTIMIZER, teacher=None, state=None, **keep):
    return hand_over(
        trained() if state is None else state,
        MODEL,
        make_optimizer(config),
        mesh_of(),
        jax.random.key(1),
        teacher=teacher,
        **keep,
    )


def counts(opt_state):
    """Steps by which Adam corrects its bias, and those of the schedule."""
    return [
        [
            int(node.count)
            for node in jax.tree.leaves(opt_state, is_leaf=is_kind)
            if is_kind(node)
        ]
        for is_kind in (
            lambda node: isinstance(node, optax.ScaleByAdamState),
            lambda node: isinstance(node, optax.ScaleByScheduleState),
        )
    ]


def test_moments_go_over_where_asked_and_the_schedule_begins_anew():
    before = trained()
    assert counts(before.opt_state) == [[1], [1]]
    anew, kept = handed_over(), handed_over(keep_moments=True)
    assert counts(anew.opt_state) == [[0], [0]]
    assert counts(kept.opt_state) == [[1], [0]]
    moments = optax.tree.get(kept.opt_state, "mu")
    assert_same_bits(moments, optax.tree.get(before.opt_state, "mu"))
    assert all((np.asarray(leaf) > 0).all() for leaf in jax.tree.leaves(moments))
    assert int(kept.step) == 0
    assert_same_bits(kept.params, before.params)
    assert kept.teacher is None
    rounded = handed_over(
        OptimizerConfig(learning_rate=1e-2, warmup_steps=3, mu_dtype="bfloat16"),
        keep_moments=True,
    )
    moments = jax.tree.leaves(optax.tree.get(rounded.opt_state, "mu"))
    assert {str(leaf.dtype) for leaf in moments} == {"bfloat16"}


def test_the_teacher_goes_over_where_asked():
    before = trained()
    anew = handed_over(teacher=BaseTeacher())
    assert_same_bits(anew.teacher, before.params)
    kept = handed_over(teacher=SyncedTeacher(every=2), keep_teacher=True)
    assert_same_bits(kept.teacher, before.teacher)
    half = handed_over(teacher=BaseTeacher(dtype="bfloat16"), keep_teacher=True)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(half.teacher)} == {"bfloat16"}
    for teacher in (None, LiveTeacher()):
        with pytest.raises(ConfigError, match="got none after"):
            handed_over(teacher=teacher, keep_teacher=True)


def _gone(tree):
    return [leaf.is_deleted() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("keep_moments", [False, True])
@pytest.mark.parametrize("keep_teacher", [False, True])
def test_no_device_holds_two_of_anything(monkeypatch, keep_moments, keep_teacher):
    """What is dropped is gone before its successor is made; what stays is the same."""
    before, seen = trained(), []
    begin = training_state._begin

    def seeing(*given):
        fresh = begin(*given)
        seen.append((_gone(before.opt_state), _gone(before.teacher)))
        return fresh

    monkeypatch.setattr(training_state, "_begin", seeing)
    after = handed_over(
        teacher=EMATeacher(),
        state=before,
        keep_moments=keep_moments,
        keep_teacher=keep_teacher,
    )
    [(moments, teacher)] = seen
    assert set(moments) == {not keep_moments}
    assert set(teacher) == {not keep_teacher}
    assert not any(_gone(after))
    kept = {id(leaf) for leaf in jax.tree.leaves(before)}

    def stayed(tree):
        return {id(leaf) in kept for leaf in jax.tree.leaves(tree)}

    assert stayed(after.params) == {True}
    assert stayed(optax.tree.get(after.opt_state, "mu")) == {keep_moments}
    assert stayed(after.teacher) == {keep_teacher}


def test_a_refused_change_of_phase_leaves_the_state_whole():
    before = trained()
    with pytest.raises(ConfigError, match="optimizer of the phase before"):
        hand_over(
            before,
            MODEL,
            optax.sgd(0.1),
            mesh_of(),
            jax.random.key(1),
            teacher=None,
            keep_moments=True,
        )
    with pytest.raises(ConfigError, match="got none after"):
        handed_over(state=before, keep_teacher=True)
    nowhere = jax.tree.map(lambda leaf: leaf * jnp.nan, before.params)
    with pytest.raises(CheckpointError, match="finite"):
        handed_over(state=before._replace(params=nowhere))
    assert not any(_gone(before))


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([], "one or more phases"),
        ([phase("a"), phase("a")], "of different names"),
        ([phase("a", keep_moments=True)], "first phase to keep nothing"),
        ([phase("a", SFT()), phase("b", keep_teacher=True)], "got none in a"),
        (
            [phase("a"), phase("b", teacher=LiveTeacher(), keep_teacher=True)],
            "got none in b",
        ),
    ],
)
def test_phases_that_do_not_fit_are_refused_before_anything(tmp_path, phases, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, phases)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name of a folder"),
        ({"name": "a/b"}, "name of a folder"),
        ({"terms": ()}, "one or more terms"),
        ({"steps": 0}, r"PhaseConfig\.steps"),
    ],
)
def test_a_phase_that_is_none(changes, message):
    whole = {"name": "fd", "terms": (FD(),), "steps": 1}
    with pytest.raises(ConfigError, match=message):
        PhaseConfig(**(whole | changes))
