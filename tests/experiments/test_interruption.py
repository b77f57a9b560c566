"""A run that is killed, resumed, stopped and resumed ends as if nothing had been."""

import json
import os
import signal
import time

import pytest

from experiments.miniature.config import ComparisonConfig
from experiments.miniature.resume import RESUME
from fdjax.errors import ConfigError
from fdjax.metrics import read_metrics
from fdjax.run.folder import open_run
from small_run import arguments, finished, started


@pytest.mark.slow
def test_kill_stop_move_and_damage_change_nothing(tmp_path, whole):
    whole, _ = whole
    broken, moved = tmp_path / "broken", tmp_path / "moved"
    # Without a word, in the middle of GRPO: what no checkpoint holds is done again.
    begun = arguments(broken)
    status, _ = interrupted(begun, broken, arm="grpo", step=5, by=signal.SIGKILL)
    assert status == -signal.SIGKILL
    # Neither the place nor the number of Lean processes decides anything.
    broken.rename(moved)
    resume = [*arguments(moved), "--lean-workers", "1", "--resume"]
    status, said = interrupted(resume, moved, arm="fd", step=1, by=signal.SIGTERM)
    assert status == os.EX_TEMPFAIL
    assert "--resume" in said
    (moved / "checkpoints" / "grpo" / "6" / "state" / "manifest.ocdbt").unlink()
    finished(resume)
    assert results(moved) == results(whole)
    assert steps(moved) == steps(whole)
    phases = {path.name for path in (whole / "checkpoints").iterdir()}
    assert phases == set(RESUME.phases)
    # The handover, from which FD→GRPO begins, and the newest two.
    kept = {path.name for path in (whole / "checkpoints" / "fd").iterdir()}
    assert kept == {"3", "4", "6"}


def interrupted(arguments, folder, *, arm, step, by):
    """Runs until an arm has logged a step, then sends a signal: status and output.

    Meanwhile nobody else gets into the folder.
    """
    process = started(arguments)
    path = folder / "metrics.jsonl"
    while process.poll() is None and (arm, step) not in logged(path):
        time.sleep(0.02)
    with (
        pytest.raises(ConfigError, match=f"process {process.pid} on"),
        open_run(folder, ComparisonConfig(), RESUME, resume=True),
    ):
        pass
    process.send_signal(by)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def logged(path):
    """(arm, step) of complete rows; the last line may be on its way."""
    if not path.exists():
        return set()
    rows = [json.loads(line) for line in path.read_text().splitlines(True)[:-1]]
    return {(row["arm"], row["step"]) for row in rows}


def results(folder):
    """What the run concluded; seconds aside."""
    evaluation = json.loads((folder / "eval.json").read_text())
    return {key: value for key, value in evaluation.items() if key != "about"}


def steps(folder):
    """Every logged step and attempt, with what does not depend on the clock.

    An arm that went back wrote its last rows behind those of the next.
    """
    metrics = [
        (row["arm"], row["step"], row.get("train/loss"), row.get("reward/mean"))
        for row in read_metrics(folder / "metrics.jsonl")
    ]
    samples = [
        (row["arm"], row["step"], row["proof"], row["status"])
        for row in read_metrics(folder / "samples.jsonl")
    ]
    return sorted(metrics, key=_place), sorted(samples, key=_place)


def _place(row):
    return row[:2]
