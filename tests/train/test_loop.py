"""A run that stops and goes on takes the same steps, bit for bit."""

import jax
import numpy as np
import pytest

from fdjax.errors import DamagedCheckpointError
from fdjax.metrics import MetricsWriter, SampleWriter, read_metrics
from fdjax.train import (
    AlternatingSource,
    OptimizerConfig,
    Phase,
    StoppedError,
    StopRequest,
    SupervisedSource,
    init_state,
    make_optimizer,
    make_train_step,
    sft_objective,
    train,
)
from tiny import MODEL, PROBLEMS, TOKENIZER, mesh_of

OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=3e-3, warmup_steps=2))


def source():
    plain, informed = (
        SupervisedSource(
            [(p, note, p.references[0]) for p in PROBLEMS],
            TOKENIZER,
            batch_size=4,
            seed=0,
            prompt_width=64,
            response_width=24,
        )
        for note in (None, "hint")
    )
    return AlternatingSource(plain, informed, share=0.5)


def run(folder, *, steps=9, stop_after=None, **settings):
    mesh = mesh_of()
    stop = StopRequest()

    def on_step(done, metrics):
        stop.requested = done == stop_after

    folder.mkdir(exist_ok=True)
    with (
        MetricsWriter(folder / "metrics.jsonl") as writer,
        SampleWriter(folder / "samples.jsonl") as samples,
    ):
        state = train(
            Phase(
                name="sft",
                steps=steps,
                source=source(),
                train_step=make_train_step(
                    MODEL, sft_objective(MODEL), OPTIMIZER, mesh, teacher_rate=0.1
                ),
                checkpoint_every=4,
            ),
            init_state(MODEL, OPTIMIZER, mesh, jax.random.key(0)),
            mesh=mesh,
            directory=folder / "checkpoints",
            writer=writer,
            samples=samples,
            stop=stop,
            on_step=on_step,
            **settings,
        )
    return state, read_metrics(folder / "metrics.jsonl")


def assert_same_bits(first, second):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def values(rows):
    return [{k: v for k, v in row.items() if not k.startswith("time")} for row in rows]


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


def test_going_back_repeats_what_was_later(tmp_path, straight):
    run(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "9" / "state" / "manifest.ocdbt").unlink()
    with pytest.raises(DamagedCheckpointError):
        run(tmp_path)
    state, rows = run(tmp_path, resume="whole")
    assert_same_bits(state, straight[0])
    assert values(rows) == values(straight[1])
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        "8",
        "9",
        "9.set-aside",
    ]
    # Nothing is damaged now: the same command finds the phase finished.
    assert_same_bits(run(tmp_path, resume="whole")[0], straight[0])


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
