"""A step that was skipped leaves its batch to look at, and what is wrong with it."""

import functools
import json
import logging
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.errors import DataError
from fdjax.metrics import EventWriter, MetricsWriter, SampleWriter, read_events
from fdjax.train import (
    GRPO,
    AlarmError,
    CheckpointsConfig,
    Guards,
    GuardsConfig,
    IdleError,
    OptimizerConfig,
    Phase,
    StepData,
    StopRequest,
    init_state,
    make_alarms,
    make_diagnosis,
    make_objective,
    make_optimizer,
    make_train_step,
    read_dump,
    train,
)
from tiny import MODEL, distillation_data, mesh_of

OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=1e-3))
OBJECTIVE = make_objective(MODEL, (GRPO(),))


def batch(*wrong):
    """Of eight attempts; the sampler's log-probabilities of some rows are NaN."""
    good = distillation_data()
    old = np.full(good.responses.shape, -1.0, np.float32)
    old[list(wrong)] = np.nan
    return good._replace(
        feedback=None,
        advantages=np.linspace(-1, 1, 8, dtype=np.float32),
        old_logprobs=old,
        version=np.zeros(8, np.int32),
    )


class Batches:
    """Iterations of one batch each, those of some numbers with NaN."""

    def __init__(self, *wrong, updates=1):
        self._wrong, self._updates, self._done = wrong, updates, 0

    def next(self, state, timer):
        self._done += 1
        good = [batch()] * (self._updates - 1)
        last = batch(2, 5) if self._done in self._wrong else batch()
        return StepData(batches=[*good, last], metrics={})

    def get_state(self):
        return {"done": self._done}

    def set_state(self, state):
        self._done = state["done"]


@functools.cache
def compiled():
    step = make_train_step(MODEL, OBJECTIVE, OPTIMIZER, mesh_of())
    state = init_state(MODEL, OPTIMIZER, mesh_of(), jax.random.key(3))
    return SimpleNamespace(step=step, state=state, diagnose=make_diagnosis(OBJECTIVE))


def run(folder, *wrong, steps=4, config=None, updates=1, **settings):
    folder.mkdir(exist_ok=True)
    config = config or GuardsConfig()
    with (
        MetricsWriter(folder / "metrics.jsonl") as writer,
        SampleWriter(folder / "samples.jsonl") as samples,
        EventWriter(folder / "events.jsonl") as events,
    ):
        return train(
            Phase(
                name="grpo",
                steps=steps,
                source=Batches(*wrong, updates=updates),
                train_step=compiled().step,
                diagnose=compiled().diagnose,
                checkpoints=CheckpointsConfig(every=100),
                **settings,
            ),
            jax.tree.map(jnp.copy, compiled().state),
            mesh=mesh_of(),
            directory=folder / "checkpoints",
            writer=writer,
            samples=samples,
            stop=StopRequest(),
            guards=Guards(
                alarms=make_alarms(config, "float32"),
                events=events,
                folder=folder,
                dumps=config.dumps,
            ),
        )


def events_of(folder):
    return [
        (row["step"], row["guard"], row["action"])
        for row in read_events(folder / "events.jsonl")
    ]


def test_the_batch_is_written_and_shows_the_fault_again(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run(tmp_path, 2)
    [path] = (tmp_path / "dumps" / "grpo").iterdir()
    dump = read_dump(path)
    about = dump.about
    assert (about["iteration"], about["update"], about["step"]) == (2, 0, 1)
    assert about["rows_not_finite"] == {"old_logprobs": [2, 5]}
    assert about["loss"] == "nan"
    leaves = jax.tree.leaves(compiled().state.params)
    assert len(about["gradient_not_finite"]) == len(leaves)
    assert about["gradient_not_finite"]["embedding"] == 304 * 16
    for found, given in zip(dump.batch, batch(2, 5), strict=True):
        if given is not None:
            np.testing.assert_array_equal(found, given)
    again = compiled().diagnose(compiled().state, dump.batch)
    assert np.isnan(again.loss)
    # Without the two rows all is well.
    rows = [0, 1, 3, 4, 6, 7, 0, 1]
    mended = jax.tree.map(lambda array: array[rows], dump.batch)
    assert np.isfinite(compiled().diagnose(compiled().state, mended).loss)
    assert events_of(tmp_path) == [
        (2, "non_finite", "dump"),
        (2, "non_finite", "warn"),
    ]
    assert sum("its batch is in dumps/grpo/2" in text for text in caplog.messages) == 1
    assert sum("Guard non_finite" in text for text in caplog.messages) == 1


def test_where_the_update_overflows_the_gradient_is_finite(tmp_path):
    diagnosis = compiled().diagnose(compiled().state, batch())
    assert np.isfinite(diagnosis.loss)
    assert all(count == 0 for count in diagnosis.not_finite.values())
    total = np.sqrt(sum(float(norm) ** 2 for norm in diagnosis.norms.values()))
    state = jax.tree.map(jnp.copy, compiled().state)
    _, metrics = compiled().step(state, batch())
    norm = metrics["train/gradient_norm"].value()
    assert total == pytest.approx(norm, rel=1e-5)  # sums of float32


@pytest.mark.parametrize(("log_every", "updates"), [(1, 2), (3, 1), (3, 2)])
def test_a_row_of_several_iterations_and_steps_names_the_one(
    log_every, updates, tmp_path
):
    """The batch is known also where the host hears of the skip an iteration later."""
    run(tmp_path, 2, steps=6, log_every=log_every, updates=updates)
    about = read_dump(tmp_path / "dumps/grpo/2").about
    last = updates - 1
    assert (about["update"], about["step"]) == (last, updates + last)
    seen = 2 if log_every == 1 else 3
    assert about["diagnosed_at_step"] == seen * updates
    assert about["loss"] == "nan"


def test_dumps_are_few_and_the_share_of_skips_ends_the_run(tmp_path):
    config = GuardsConfig(median_of=6, non_finite=0.5)
    wrong = (1, 2, 4, 5, 6, 7)
    with pytest.raises(AlarmError, match=r"over 6 rows to be at most 0\.5, got 0\.83"):
        run(tmp_path, *wrong, steps=9, config=config)
    dumped = {int(path.name) for path in (tmp_path / "dumps/grpo").iterdir()}
    assert dumped == {1, 2, 4}
    assert events_of(tmp_path)[-1] == (6, "non_finite", "stop")
    # The same command stops again as long as it goes on like this.
    with pytest.raises(AlarmError, match="after 7 iterations"):
        run(tmp_path, *wrong, steps=9, config=config)
    assert {int(path.name) for path in (tmp_path / "dumps/grpo").iterdir()} == dumped
    only_warned = GuardsConfig(median_of=6, non_finite=0.5, stop=())
    state = run(tmp_path, *wrong, steps=9, config=only_warned)
    assert int(state.step) == 9


def test_skips_in_a_row_end_the_run_with_an_event(tmp_path):
    with pytest.raises(IdleError, match="none in 2 iterations"):
        run(tmp_path, 2, 3, max_idle=2)
    assert (3, "idle", "stop") in events_of(tmp_path)


def test_events_after_the_checkpoint_are_written_anew(tmp_path):
    """A run that is killed and resumed says what an uninterrupted one says."""
    run(tmp_path / "straight", 2, 4, steps=5)

    folder = tmp_path / "killed"
    run(folder, 2, 4, steps=3)
    before = (folder / "events.jsonl").read_bytes()
    torn = {"arm": "grpo", "step": 4, "guard": "late"}
    (folder / "events.jsonl").write_bytes(before + json.dumps(torn).encode() + b"\n")
    run(folder, 2, 4, steps=5)
    straight = (tmp_path / "straight" / "events.jsonl").read_bytes()
    assert (folder / "events.jsonl").read_bytes() == straight


def test_a_folder_that_is_no_dump_is_named(tmp_path):
    with pytest.raises(DataError, match="below the run's dumps/"):
        read_dump(tmp_path)


def test_a_full_disk_does_not_end_the_run(tmp_path, caplog):
    (tmp_path / "dumps").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        state = run(tmp_path, 2)
    assert int(state.step) == 4
    assert any("could not be written" in text for text in caplog.messages)
