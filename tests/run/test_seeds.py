"""Several seeds of an experiment by one command."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from fdjax.errors import ConfigError, DataError
from fdjax.eval import seeds_claim
from fdjax.feedback import ConstantFeedback
from fdjax.judge import Judgement
from fdjax.run import (
    Arm,
    AttemptsConfig,
    EvaluationConfig,
    PolicyConfig,
    RunConfig,
    SeedProbes,
    Task,
    experiment,
    read_probes,
)
from fdjax.train import FD, OptimizerConfig, PhaseConfig
from tiny import PROBLEMS


class Length:
    async def judge(self, attempts):
        return [Judgement(reward=float(len(text))) for _, text in attempts]


def run(policy, runs, *flags):
    config = RunConfig(
        name="own",
        runs=runs,
        policy=PolicyConfig(source=str(policy), dtype="float32"),
        attempts=AttemptsConfig(
            problems=4, group_size=2, max_new_tokens=8, feedback_tokens=16
        ),
        evaluation=EvaluationConfig(samples=2, ks=(1,)),
    )

    def task(context):
        return Task(
            problems=PROBLEMS[:4],
            # Told apart by what they state.
            evaluation=[replace(each, name="t") for each in PROBLEMS[4:6]],
            judge=Length(),
            writer=ConstantFeedback(text="hint"),
        )

    def arms(config):
        optimizer = OptimizerConfig(learning_rate=1e-2)
        phase = PhaseConfig(name="fd", terms=(FD(),), steps=1, optimizer=optimizer)
        return (Arm(name="fd", phases=(phase,)),)

    def claims(probes):
        start, end = (probes.of_problems("rewards", one) for one in ("base", "fd"))
        assert start.shape == end.shape == (2, 2)
        return [seeds_claim("gain", "FD gains", end - start)]

    return experiment(config, task=task, arms=arms, claims=claims, arguments=flags)


@pytest.fixture(scope="module")
def finished(policy, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    assert run(policy, runs, "--seeds", "3", "1") == 0
    return runs / "own"


def rewards(folder, policy, reader="student"):
    (row,) = [
        row
        for row in read_probes(folder / "probes.jsonl")
        if (row["policy"], row["reader"]) == (policy, reader)
    ]
    return row["rewards"]


def test_each_seed_is_a_run_and_they_differ(finished):
    for seed in (3, 1):
        config = json.loads((finished / f"seed{seed}" / "config.json").read_text())
        assert (config["config"]["seed"], config["config"]["seeds"]) == (seed, [])
        assert (finished / f"seed{seed}" / "report.html").exists()
    assert rewards(finished / "seed1", "fd") != rewards(finished / "seed3", "fd")


def test_they_are_pooled(finished):
    ends = [np.mean(rewards(finished / f"seed{seed}", "fd")) for seed in (1, 3)]
    cell = f"{np.mean(ends):.3f} ({min(ends):.3f}–{max(ends):.3f})"
    table = (finished / "table.md").read_text()
    (last,) = [line for line in table.splitlines() if line.startswith("| 1 |")]
    assert last.split(" | ")[1] == cell
    (claim,) = json.loads((finished / "claims.json").read_text())["claims"]
    starts = [np.mean(rewards(finished / f"seed{seed}", "base")) for seed in (1, 3)]
    assert claim["difference"] == pytest.approx(np.mean(ends) - np.mean(starts))
    page = (finished / "report.html").read_text()
    assert cell in page
    assert 'href="seed3/report.html"' in page
    assert (finished / "figures" / "held_out.png").exists()


def test_a_teachers_rewards_are_averaged_over_what_it_read(finished):
    """Two attempts at each of two problems were commented."""
    of_teacher = rewards(finished / "seed1", "fd", "teacher")
    pooled = SeedProbes.read(finished).of_problems("rewards", "fd", "teacher")
    np.testing.assert_allclose(
        pooled[0], [np.mean(of_teacher[:2]), np.mean(of_teacher[2:])]
    )


def test_a_seed_that_is_missing_is_made_and_the_others_stay(
    finished, policy, tmp_path, capsys
):
    shutil.copytree(finished, tmp_path / "own")
    shutil.rmtree(tmp_path / "own" / "seed1")
    assert run(policy, tmp_path, "--seeds", "3", "1", "--resume") == 0
    for seed in (1, 3):
        again = (tmp_path / "own" / f"seed{seed}" / "probes.jsonl").read_bytes()
        assert again == (finished / f"seed{seed}" / "probes.jsonl").read_bytes()


def test_one_seed_goes_on_alone(finished, policy, capsys):
    flags = ["--runs", str(finished), "--name", "seed3", "--seed", "3", "--resume"]
    assert run(policy, finished, *flags) == 0


def test_runs_with_other_settings_are_not_pooled(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "own")
    path = tmp_path / "own" / "seed1" / "config.json"
    path.write_text(
        path.read_text().replace('"max_new_tokens": 8', '"max_new_tokens": 9')
    )
    with pytest.raises(
        DataError, match=r"other attempts\.max_new_tokens in seed3 than"
    ):
        SeedProbes.read(tmp_path / "own")


def test_seeds_are_different(tmp_path):
    with pytest.raises(ConfigError, match=r"different seeds.*got \(1, 1\)"):
        RunConfig(seeds=(1, 1))
