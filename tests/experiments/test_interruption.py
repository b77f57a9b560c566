"""A run that is killed, resumed, stopped and resumed ends as if nothing had been."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.changes import PHASES
from experiments.config import ComparisonConfig
from experiments.folder import open_run
from fdjax.errors import ConfigError
from fdjax.metrics import read_metrics

ROOT = Path(__file__).parents[2]
TINY = """
    --data.problems 120 --data.pool 24 --data.validation 8 --data.test 8
    --data.mistakes 32 --warm-start.steps 12 --warm-start.batch-size 16
    --warm-start.optimizer.decay-steps 60 --model.num-layers 1
    --rollout.steps 6 --rollout.handover 3 --rollout.problems 4 --rollout.group-size 2
    --evaluation.samples 4 --evaluation.ks 1 4
""".split()


def test_kill_stop_move_and_damage_change_nothing(tmp_path):
    whole, broken, moved = (tmp_path / name for name in ("whole", "broken", "moved"))
    finished(command(whole))
    # Without a word, in the middle of GRPO: what no checkpoint holds is done again.
    first = interrupted(command(broken), broken, arm="grpo", step=5, by=signal.SIGKILL)
    assert first.returncode == -signal.SIGKILL
    # Neither the place nor the number of Lean processes decides anything.
    broken.rename(moved)
    resume = [*command(moved), "--lean-workers", "1", "--resume"]
    second = interrupted(resume, moved, arm="fd", step=1, by=signal.SIGTERM)
    assert second.returncode == 130
    assert "--resume" in second.stdout
    (moved / "checkpoints" / "grpo" / "6" / "state" / "manifest.ocdbt").unlink()
    finished([*resume, "whole"])
    assert results(moved) == results(whole)
    assert steps(moved) == steps(whole)
    phases = {path.name for path in (whole / "checkpoints").iterdir()}
    assert phases == set(PHASES)
    # The handover, from which FD→GRPO begins, and the newest two.
    kept = {path.name for path in (whole / "checkpoints" / "fd").iterdir()}
    assert kept == {"3", "4", "6"}


def command(folder):
    module = [sys.executable, "-m", "experiments.quickstart"]
    return [*module, "--runs", str(folder.parent), "--name", folder.name, *TINY]


def finished(command):
    process = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]


def interrupted(command, folder, *, arm, step, by):
    """Runs until an arm has logged a step, then sends a signal.

    Meanwhile nobody else gets into the folder.
    """
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    path = folder / "metrics.jsonl"
    while process.poll() is None and (arm, step) not in logged(path):
        time.sleep(0.02)
    with (
        pytest.raises(ConfigError, match=f"process {process.pid} on"),
        open_run(folder, ComparisonConfig(), resume=True),
    ):
        pass
    process.send_signal(by)
    output, _ = process.communicate(timeout=300)
    return subprocess.CompletedProcess(command, process.returncode, output)


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
