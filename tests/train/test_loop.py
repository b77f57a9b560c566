"""A run that stops and goes on takes the same steps, bit for bit."""

import functools
import itertools
import math
import types
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.checkpoint import CheckpointStore, Retention
from fdjax.errors import BackendError, CheckpointError, ConfigError
from fdjax.metrics import MetricsWriter, read_metrics
from fdjax.records import Mean
from fdjax.train import (
    CheckpointsConfig,
    IdleError,
    StepData,
    StoppedError,
    make_train_step,
)
from tiny import MODEL, mesh_of
from train.small_loop import (
    IMITATION,
    OPTIMIZER,
    assert_same_bits,
    checkpoints,
    first_state,
    run,
    source,
    train_step,
    values,
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return run(tmp_path_factory.mktemp("straight"))


def test_loss_falls(straight):
    _, rows = straight
    assert [row["step"] for row in rows] == list(range(1, 10))
    assert rows[-1]["train/loss"] < rows[0]["train/loss"] - 0.3


def test_stopping_saves_and_resuming_repeats_nothing(tmp_path, straight):
    with pytest.raises(StoppedError, match="after 3 iterations"):
        run(tmp_path, stop_after=3)
    state, rows = run(tmp_path)
    assert_same_bits(state, straight[0])
    assert values(rows) == values(straight[1])


def test_a_kill_between_checkpoints_loses_only_the_steps_since(
    tmp_path, straight, monkeypatch
):
    def killed(self, arm, step, *rest):
        if step == 7:
            raise KeyboardInterrupt
        return write(self, arm, step, *rest)

    write = MetricsWriter.write
    with monkeypatch.context() as patch:
        patch.setattr(MetricsWriter, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    # Rows 5 and 6 are later than the checkpoint at 4 and must not appear twice.
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 6
    state, rows = run(tmp_path)
    assert_same_bits(state, straight[0])
    assert values(rows) == values(straight[1])


def test_a_finished_phase_is_not_run_again(tmp_path, straight):
    run(tmp_path, steps=9)
    state, rows = run(tmp_path, steps=9)
    assert_same_bits(state, straight[0])
    assert len(rows) == 9


def test_a_damaged_newest_is_done_again_from_the_one_before(tmp_path, straight, caplog):
    run(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "9" / "state" / "manifest.ocdbt").unlink()
    state, rows = run(tmp_path)
    assert "/checkpoints/9 is damaged" in caplog.text
    assert_same_bits(state, straight[0])
    assert values(rows) == values(straight[1])
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        "8",
        "9",
        "9.set-aside",
    ]
    # Nothing is damaged now: the same command finds the phase finished.
    assert_same_bits(run(tmp_path)[0], straight[0])


def test_lost_rows_leave_a_mark(tmp_path, straight, caplog):
    run(tmp_path, steps=4)
    (tmp_path / "metrics.jsonl").unlink()
    for _ in range(2):
        _, rows = run(tmp_path, steps=9)
    assert "got 0: the others are lost" in caplog.text
    assert values(rows[:1]) == [{"arm": "sft", "step": 4, "resume/missing_rows": 4}]
    assert values(rows[1:]) == values(straight[1][4:])


def test_going_on_after_a_shorter_phase(tmp_path, straight):
    run(tmp_path, steps=4)
    state, rows = run(tmp_path, steps=9)
    assert_same_bits(state, straight[0])
    assert values(rows) == values(straight[1])


class Failing:
    """A source with two optimizer steps in each iteration; call `fails` raises."""

    def __init__(self, fails=None, error=None):
        self._inner = source()
        self._fails = fails
        self._error = error
        self.calls = 0

    def next(self, state, timer):
        batches = [self._inner.next(state, timer).batches[0] for _ in range(2)]
        self.calls += 1
        if self.calls == self._fails:
            raise self._error
        return StepData(
            batches=batches, metrics={"test/call": Mean(1.0 / self.calls, 1)}
        )

    def get_state(self):
        return self._inner.get_state() | {"calls": self.calls}

    def set_state(self, state):
        self.calls = state["calls"]
        self._inner.set_state(state)


@pytest.fixture(scope="module")
def in_pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in_pairs")
    return run(folder, source=Failing(), log_every=3)


@pytest.mark.parametrize(
    "error", [BackendError("the server is away"), KeyboardInterrupt(), MemoryError()]
)
def test_an_error_of_the_source_saves_the_iterations_before(tmp_path, in_pairs, error):
    """It comes in the sixth iteration; a row of the fourth to the sixth is begun."""
    with pytest.raises(type(error)) as raised:
        run(tmp_path, source=Failing(6, error), log_every=3)
    assert raised.value is error
    assert error.__notes__ == [
        "The state after 5 iterations is saved; resume goes on from there."
    ]
    assert checkpoints(tmp_path) == [4, 5]
    state, rows = run(tmp_path, source=Failing(), log_every=3)
    assert_same_bits(state, in_pairs[0])
    assert values(rows) == values(in_pairs[1])
    assert [row["step"] for row in rows] == [3, 6, 9]


def test_an_error_between_optimizer_steps_leaves_the_checkpoint_before(
    tmp_path, in_pairs
):
    calls = 0

    def fails_in_the_middle(state, batch):
        nonlocal calls
        calls += 1
        if calls == 12:
            raise RuntimeError("out of memory")
        return train_step()(state, batch)

    settings = {"source": Failing(), "log_every": 3}
    with pytest.raises(RuntimeError, match="out of memory") as raised:
        run(tmp_path, train_step=fails_in_the_middle, **settings)
    assert "Iteration 6 failed between" in raised.value.__notes__[0]
    assert checkpoints(tmp_path) == [4]
    state, rows = run(tmp_path, source=Failing(), log_every=3)
    assert_same_bits(state, in_pairs[0])
    assert values(rows) == values(in_pairs[1])


def test_an_error_before_the_first_optimizer_step_saves(tmp_path, in_pairs):
    def on_data(done, state, data):
        if done == 6:
            raise OSError("no space for samples")

    settings = {"source": Failing(), "log_every": 3}
    with pytest.raises(OSError, match="no space"):
        run(tmp_path, on_data=on_data, **settings)
    assert checkpoints(tmp_path) == [4, 6]
    state, rows = run(tmp_path, source=Failing(), log_every=3)
    assert_same_bits(state, in_pairs[0])
    assert values(rows) == values(in_pairs[1])


@pytest.mark.parametrize("written", [False, True])
def test_an_interrupt_beside_a_row_neither_loses_nor_doubles_it(
    tmp_path, straight, monkeypatch, written
):
    interrupts = iter([KeyboardInterrupt()])

    def interrupted(self, arm, step, values):
        error = next(interrupts, None) if step == 6 else None
        if written or error is None:
            write(self, arm, step, values)
        if error is not None:
            raise error

    write = MetricsWriter.write
    with monkeypatch.context() as patch:
        patch.setattr(MetricsWriter, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert checkpoints(tmp_path) == [4, 6]
    state, rows = run(tmp_path)
    assert_same_bits(state, straight[0])
    assert values(rows) == values(straight[1])


def test_an_error_in_the_first_iteration_leaves_nothing(tmp_path):
    with pytest.raises(BackendError) as raised:
        run(tmp_path, source=Failing(1, BackendError("away")))
    assert not hasattr(raised.value, "__notes__")
    assert checkpoints(tmp_path) == []


def test_a_rescue_that_fails_does_not_hide_the_error(tmp_path, monkeypatch):
    def full(self, *_, **__):
        raise CheckpointError("the disk is full")

    monkeypatch.setattr(CheckpointStore, "save", full)
    with pytest.raises(BackendError, match="away") as raised:
        run(tmp_path, source=Failing(3, BackendError("away")))
    assert raised.value.__notes__ == [
        "The state after 2 iterations could not be saved: the disk is full"
    ]


def test_a_stop_in_a_row_changes_none_of_its_bits(tmp_path, in_pairs):
    with pytest.raises(StoppedError, match="after 5 iterations"):
        run(tmp_path, source=Failing(), log_every=3, stop_after=5)
    _, rows = run(tmp_path, source=Failing(), log_every=3)
    assert values(rows) == values(in_pairs[1])


def poisoned(*bad, nothing=()):
    """A train step some of whose calls, counted from 1, get a batch to skip."""
    calls = 0

    def step(state, batch):
        nonlocal calls
        calls += 1
        if calls in bad:
            state, metrics = jitted_nan(state, batch)
        else:
            scored = batch.written & (calls not in nothing)
            state, metrics = train_step()(state, batch._replace(written=scored))
        return state, metrics

    return step


@functools.cache
def _nan_step():
    def loss(*inputs):
        loss, metrics = IMITATION.loss(*inputs)
        return loss * np.nan, metrics

    objective = replace(IMITATION, loss=loss)
    return make_train_step(MODEL, objective, OPTIMIZER, mesh_of())


def jitted_nan(state, batch):
    return _nan_step()(state, batch)


def test_a_skipped_step_is_counted_and_left_out_of_the_means(tmp_path, straight):
    state, rows = run(tmp_path, train_step=poisoned(3, nothing=(5,)))
    assert [row["train/skipped"] for row in rows] == [0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert [row["train/empty"] for row in rows] == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert [row["step"] for row in rows if row["train/loss"] is None] == [3, 5]
    assert values(rows[:2]) == values(straight[1][:2])
    assert int(state.step) == 9
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_a_row_is_the_mean_of_the_steps_that_were_taken(tmp_path, straight):
    _, (row,) = run(tmp_path, steps=3, log_every=3, train_step=poisoned(3))
    first, second = (row["train/loss"] for row in straight[1][:2])
    assert row["train/loss"] == pytest.approx((first + second) / 2, rel=1e-6)
    assert row["train/skipped"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("step", "named"),
    [
        ({"bad": range(3, 99)}, r"in 4 steps loss.*\(train/skipped\)\. The"),
        ({"nothing": range(3, 99)}, r"in 4 steps nothing was.*\(train/empty\)\. The"),
        (
            {"bad": (3, 5), "nothing": (4, *range(6, 99))},
            r"in 2 steps loss.*in 2 steps nothing",
        ),
    ],
)
def test_a_run_stops_after_a_few_iterations_without_a_step(tmp_path, step, named):
    """The loop notices one iteration later, because it does not wait for the device."""
    steps = poisoned(*step.get("bad", ()), nothing=step.get("nothing", ()))
    with pytest.raises(IdleError, match=rf"none in 4 iterations.*{named}"):
        run(tmp_path, train_step=steps, max_idle=4, log_every=9)
    assert checkpoints(tmp_path) == [4, 7]
    # The state is that after two steps; a cure lets the run go on.
    state, rows = run(tmp_path)
    assert rows[-1]["step"] == 9
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_iterations_without_a_step_need_not_end_a_run(tmp_path):
    step = poisoned(1, 2, 3, 5, 6, 7, 9)
    _, rows = run(tmp_path, train_step=step, max_idle=4)
    assert len(rows) == 9


def test_a_run_that_ends_in_iterations_without_a_step_says_so(tmp_path):
    with pytest.raises(IdleError, match="none in 4 iterations"):
        run(tmp_path, train_step=poisoned(6, 7, 8, 9), max_idle=4)
    assert checkpoints(tmp_path) == [8, 9]


def test_training_does_not_begin_from_nan(tmp_path):
    state = jax.tree.map(jnp.copy, first_state())
    state.params["embedding"] = state.params["embedding"] * np.nan
    with pytest.raises(CheckpointError, match="infinity in embedding;"):
        run(tmp_path, given=state)


def test_checkpoints_that_are_asked_for_stay(tmp_path):
    kept = CheckpointsConfig(every=2, keep=Retention(newest=1, every=5, steps=(3,)))
    run(tmp_path, checkpoints=kept)
    assert checkpoints(tmp_path) == [3, 5, 9]


class Rewarded:
    """A source whose rewards are given, one an iteration."""

    def __init__(self, *rewards):
        self._inner = source()
        self._rewards = rewards
        self.calls = 0

    def next(self, state, timer):
        data = self._inner.next(state, timer)
        self.calls += 1
        reward = Mean(self._rewards[self.calls - 1], 1)
        return StepData(batches=data.batches, metrics={"reward/mean": reward})

    def get_state(self):
        return self._inner.get_state() | {"calls": self.calls}

    def set_state(self, state):
        self.calls = state["calls"]
        self._inner.set_state(state)


REWARDS = (0.1, 0.9, math.nan, 0.3, 0.9, 0.2, 0.3, 0.1, 0.2)


def test_the_checkpoint_at_the_best_row_stays_across_resumes(tmp_path):
    """Of two as good the first does."""
    keep = Retention(newest=1, best=1)
    settings = {"checkpoints": CheckpointsConfig(every=1, keep=keep)}
    with pytest.raises(StoppedError):
        run(tmp_path, source=Rewarded(*REWARDS), stop_after=4, **settings)
    assert checkpoints(tmp_path) == [2, 4]
    run(tmp_path, source=Rewarded(*REWARDS), **settings)
    assert checkpoints(tmp_path) == [2, 9]


def test_the_lowest_may_be_the_best(tmp_path):
    keep = Retention(newest=1, best=2, best_is="lowest")
    settings = CheckpointsConfig(every=1, keep=keep)
    run(tmp_path, source=Rewarded(*REWARDS), checkpoints=settings)
    assert checkpoints(tmp_path) == [1, 8, 9]


def test_a_metric_to_keep_by_that_no_row_has_is_named(tmp_path):
    """At the first row; what was done is saved."""
    settings = CheckpointsConfig(keep=Retention(best=1, metric="reward/maen"))
    with pytest.raises(ConfigError, match=r"got 'reward/maen'; .*reward/mean"):
        run(tmp_path, source=Rewarded(*REWARDS), checkpoints=settings)
    assert checkpoints(tmp_path) == [1]


def test_checkpoints_by_time(tmp_path, straight, monkeypatch):
    """Each look at the clock is half a minute later."""
    halves = itertools.count()
    clock = types.SimpleNamespace(monotonic=lambda: 30.0 * next(halves))
    monkeypatch.setattr("fdjax.train.checkpoints.time", clock)
    settings = CheckpointsConfig(every=7, minutes=1.25, keep=Retention(newest=None))
    with pytest.raises(StoppedError):
        run(tmp_path, stop_after=5, checkpoints=settings)
    assert checkpoints(tmp_path) == [3, 5]
    # Which steps are saved depends on the clock; what is computed does not.
    state, rows = run(tmp_path, checkpoints=settings)
    assert checkpoints(tmp_path) == [3, 5, 7, 9]
    assert_same_bits(state, straight[0])
    assert values(rows) == values(straight[1])
