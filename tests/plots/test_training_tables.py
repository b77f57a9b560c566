import pytest

from fdjax.plots import RunFiles, lines_of, read_run
from fdjax.plots.training_tables import last_metrics, stage_times, status_counts


def test_status_counts_of_evaluation_and_training(run_dir):
    rows = status_counts(lines_of([read_run(run_dir)]))
    assert [(row["line"].arm, row["part"], row["total"]) for row in rows] == [
        ("grpo", "evaluation", 48),
        ("fd", "evaluation", 48),
        ("grpo", "training", 1),
        ("fd", "training", 2),
    ]
    assert rows[3]["counts"] == {"rejected": 2}


def test_stage_times_add_up():
    rows = [
        {"arm": "fd", "step": 1, "time": 9.0, "time/verify_s": 2.0},
        {"arm": "fd", "step": 2, "time/verify_s": 1.5, "time/update_s": 1.0},
        {"arm": "sft", "step": 1, "time/update_s": None},
    ]
    files = RunFiles(name="run", config={}, metrics=rows, evaluation={}, samples=[])
    times = stage_times(lines_of([files]))
    assert times["stages"] == ["verify", "update"]
    (row,) = times["rows"]
    assert row["line"].arm == "fd"
    assert row["seconds"] == {"verify": 3.5, "update": 1.0}
    assert row["total"] == 4.5
    assert (row["iterations"], row["iteration"]) == (2, 2.25)


def test_a_row_may_stand_for_several_iterations():
    """Rows every twentieth iteration, of a phase that begins after another's 12th."""
    rows = [
        {"arm": "fd", "step": step, "time/update_s": seconds}
        for step, seconds in ((32, 40.0), (52, 20.0), (72, 20.0))
    ]
    files = RunFiles(name="run", config={}, metrics=rows, evaluation={}, samples=[])
    (row,) = stage_times(lines_of([files]))["rows"]
    assert (row["iterations"], row["iteration"]) == (60, 1.0)


def test_last_metrics_of_each_line(run_dir):
    table = last_metrics(lines_of([read_run(run_dir)]))
    assert [line.arm for line in table["lines"]] == ["grpo", "fd"]
    rows = {row["key"]: row["cells"] for row in table["rows"]}
    assert set(rows) == {"rollout/entropy", "reward/mean", "train/loss"}
    assert rows["rollout/entropy"][0] is None  # null throughout
    assert rows["rollout/entropy"][1]["value"] == pytest.approx(0.25)
    # Rising from the lower left to the upper right of 90 × 22 with a margin.
    points = rows["reward/mean"][1]["line"].split()
    assert (points[0], points[-1], len(points)) == ("2.0,19.0", "88.0,3.0", 5)
