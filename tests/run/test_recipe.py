"""A run from a pretrained policy: an experiment of one's own, in one file."""

import json
import re
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fdjax.checkpoint import convert, open_source
from fdjax.data.sampling import PassRateSampling
from fdjax.errors import ConfigError, DataError
from fdjax.feedback import ConstantFeedback, PolicyFeedback
from fdjax.judge import Judgement, LeanJudge
from fdjax.lean import FakeBackend, Verifier
from fdjax.metrics import read_metrics
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
    recipe,
)
from fdjax.sampling import SlotSampler
from fdjax.train import (
    FD,
    GRPO,
    CheckpointsConfig,
    EMATeacher,
    OptimizerConfig,
    PhaseConfig,
    Plateau,
)
from tiny import PROBLEMS

OPTIMIZER = OptimizerConfig(learning_rate=1e-2)
SHORT = {"prompt_tokens": 40, "max_new_tokens": 8}
"""Sizes of a review."""


class Longer:
    """A reward that does not come from Lean: 1 for an even number of characters."""

    async def judge(self, attempts):
        return [
            Judgement(reward=float(len(text) % 2 == 0), passed=len(text) % 2 == 0)
            for _, text in attempts
        ]


def config(policy, runs, **changes):
    given = RunConfig(
        name="own",
        runs=runs,
        policy=PolicyConfig(source=str(policy), dtype="float32"),
        attempts=AttemptsConfig(
            problems=4, group_size=2, max_new_tokens=8, feedback_tokens=16
        ),
        evaluation=EvaluationConfig(every=1, samples=2, ks=(1, 2)),
        checkpoints=CheckpointsConfig(export_every=2),
    )
    return replace(given, **changes)


def task(context):
    return Task(
        problems=PROBLEMS[:4],
        evaluation=PROBLEMS[4:6],
        judge=Longer(),
        writer=ConstantFeedback(text="hint"),
    )


def arms(config):
    fd = PhaseConfig(
        name="fd", terms=(FD(),), steps=2, optimizer=OPTIMIZER, teacher=EMATeacher()
    )
    grpo = PhaseConfig(name="after", terms=(GRPO(),), steps=1, optimizer=OPTIMIZER)
    return (Arm(name="both", phases=(fd, grpo)),)


def run(given, *flags, **parts):
    return experiment(
        given, **({"task": task, "arms": arms} | parts), arguments=list(flags)
    )


@pytest.fixture(scope="module")
def finished(policy, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    assert run(config(policy, runs)) == 0
    return runs / "own"


def test_a_run_leaves_probes_attempts_and_a_policy(finished, policy):
    probes = read_probes(finished / "probes.jsonl")
    assert [(row["arm"], row["step"], row["reader"]) for row in probes] == [
        ("base", 0, "student"),
        ("base", 0, "teacher"),
        ("fd", 1, "student"),
        ("fd", 1, "teacher"),
        # GRPO begins where FD ended; nobody reads feedback any more.
        ("after", 0, "student"),
        ("after", 1, "student"),
    ]
    for row in probes:
        assert len(row["rewards"]) == (4 if row["reader"] == "teacher" else 2)
        assert row["marginal_entropy"] >= 0
        assert len(row["entropies"]) == len(row["rewards"]) == len(row["problems"])
        assert min(row["entropies"]) <= row["entropy"] <= max(row["entropies"])
        assert set(row["examples"]) == {"t4", "t5"}
        of_one = row["pass_at_k"]["1"]
        assert of_one["low"] <= of_one["value"] <= of_one["high"]
        assert len(row["top_tokens"]) == 10
        assert row["top_tokens"] == sorted(row["top_tokens"], key=lambda t: -t[1])
    samples = [
        json.loads(line)
        for line in (finished / "samples.jsonl").read_text().split("\n")[:-1]
    ]
    assert [row["arm"] for row in samples] == ["fd"] * 16 + ["after"] * 8
    assert {row["feedback"] for row in samples[:16]} == {"hint"}
    # What no term reads is not written.
    assert {row["feedback"] for row in samples[16:]} == {None}
    saved = finished / "policies" / "both"
    assert (saved / "config.json").read_bytes() == (policy / "config.json").read_bytes()
    weights = "model.safetensors"
    assert (saved / weights).read_bytes() != (policy / weights).read_bytes()
    # After two iterations, and of the first phase's two alone.
    exports = finished / "exports"
    assert [path.name for path in exports.iterdir()] == ["fd-2"]
    of_fd = open_source(finished / "checkpoints" / "fd", model=policy)
    convert(of_fd, finished / "converted", to="hf")
    exported = (exports / "fd-2" / weights).read_bytes()
    assert exported == (finished / "converted" / weights).read_bytes()
    assert exported != (saved / weights).read_bytes()


@pytest.mark.parametrize(("arm", "phase"), [("base", "fd"), ("fd", "base")])
def test_the_name_of_the_policy_before_any_training_is_taken(arm, phase):
    phases = (PhaseConfig(name=phase, terms=(FD(),), steps=1),)
    with pytest.raises(ConfigError, match="expected other names than 'base'"):
        Arm(name=arm, phases=phases)


def test_seeds_may_begin_from_policies_of_their_own(policy, tmp_path):
    for seed in (1, 2):
        (tmp_path / f"policy{seed}").symlink_to(policy)
    given = config(
        tmp_path / "policy{seed}",
        tmp_path,
        evaluation=EvaluationConfig(samples=1, ks=(1,)),
    )
    assert run(given, "--seeds", "1", "2") == 0
    # Their policies are no other setting: the runs are pooled.
    assert (tmp_path / "own" / "table.md").exists()
    # Nor is a policy that is named in full.
    alone = replace(given, policy=replace(given.policy, source=f"{tmp_path}/policy2"))
    flags = ["--runs", str(tmp_path / "own"), "--name", "seed2", "--seed", "2"]
    assert run(alone, *flags, "--resume") == 0
    assert run(given, "--seeds", "1", "2", "--resume") == 0
    # One that belongs to no seed is.
    (tmp_path / "policy3").symlink_to(policy)
    shutil.rmtree(tmp_path / "own" / "seed2")
    other = replace(given, policy=replace(given.policy, source=f"{tmp_path}/policy3"))
    assert run(other, *flags) == 0
    with pytest.raises(DataError, match=r"other policy\.source in seed2"):
        SeedProbes.read(tmp_path / "own")


def test_only_chooses_arms_and_a_resumed_run_may_add_others(policy, tmp_path, capsys):
    def two(config):
        for name in ("first", "second"):
            phase = PhaseConfig(
                name=name, terms=(GRPO(),), steps=1, optimizer=OPTIMIZER
            )
            yield Arm(name=name, phases=(phase,))

    given = config(policy, tmp_path, evaluation=EvaluationConfig(samples=1, ks=(1,)))
    saved = tmp_path / "own" / "policies"
    assert run(given, "--only", "second", arms=two) == 0
    assert [folder.name for folder in saved.iterdir()] == ["second"]
    assert run(given, "--only", "third", "--resume", arms=two) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "expected only to name arms of first, second, got third" in said
    # An arm that is not asked for now has begun, and fixes what it depends on.
    changed = ("--only", "first", "--resume", "--seed", "1")
    assert run(given, *changed, arms=two) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "seed was 0, now 1" in said
    assert run(given, "--resume", arms=two) == 0
    assert sorted(folder.name for folder in saved.iterdir()) == ["first", "second"]


def test_a_finished_run_is_read_not_made_again(finished, policy, capsys):
    before = (finished / "probes.jsonl").read_bytes()
    given = config(policy, finished.parent)
    assert run(given, "--resume") == 0
    assert (finished / "probes.jsonl").read_bytes() == before


@pytest.mark.parametrize("changed", ["arms", "task"])
def test_a_file_that_was_changed_since_does_not_resume_its_run(
    changed, finished, policy, capsys, monkeypatch
):
    """No flag tells of it."""

    def faster(config):
        (arm,) = arms(config)
        fd, grpo = arm.phases
        fd = replace(fd, optimizer=replace(OPTIMIZER, learning_rate=2e-2))
        return (replace(arm, phases=(fd, grpo)),)

    def told_otherwise(context):
        return replace(task(context), writer=ConstantFeedback(text="other"))

    monkeypatch.setattr(recipe, "load_pretrained", None)
    parts = {"arms": {"arms": faster}, "task": {"task": told_otherwise}}[changed]
    assert run(config(policy, finished.parent), "--resume", **parts) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert {
        "arms": "phases.fd.optimizer.learning_rate was 0.01, now 0.02.",
        "task": "writer.text was 'hint', now 'other'.",
    }[changed] in said


def test_a_longer_arm_leaves_the_longer_policy(finished, policy, tmp_path):
    shutil.copytree(finished, tmp_path / "own")
    saved = tmp_path / "own" / "policies" / "both" / "model.safetensors"
    before = saved.read_bytes()

    def longer(config):
        (arm,) = arms(config)
        fd, grpo = arm.phases
        return (replace(arm, phases=(fd, replace(grpo, steps=2))),)

    assert run(config(policy, tmp_path), "--resume", arms=longer) == 0
    assert saved.read_bytes() != before
    probes = read_probes(tmp_path / "own" / "probes.jsonl")
    assert [(row["arm"], row["step"]) for row in probes][-2:] == [
        ("after", 1),
        ("after", 2),
    ]


def test_a_trained_policy_is_a_policy(finished, tmp_path):
    given = config(finished / "policies" / "both", tmp_path, dry_run=True)
    assert run(given) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_what_would_be(policy, tmp_path, capsys):
    def until(config):
        (arm,) = arms(config)
        fd, grpo = arm.phases
        optimizer = replace(OPTIMIZER, warmup_steps=3)
        grpo = replace(grpo, until=Plateau(), optimizer=optimizer)
        return (replace(arm, phases=(fd, grpo)),)

    assert run(config(policy, tmp_path), "--dry-run", arms=until) == 0
    said = capsys.readouterr().out
    for part in ('"group_size": 2', PROBLEMS[0].statement):
        assert part in said
    assert "2 held out" in said.replace("\n", " ")
    cells = [line.split("│")[1:-1] for line in said.split("\n") if "│" in line]
    columns = [
        " ".join(" ".join(column).split()) for column in zip(*cells, strict=True)
    ]
    # Of each phase its name, what it begins with, and so on.
    assert columns[:4] == [
        "fd from the policy after from fd",
        "2 at most 1, until reward/mean stops rising",
        "fd AdamW 0.01 grpo AdamW 0.01, warm-up 3",
        "student, EMA 0.05 teacher with feedback student, advantages (zscore)",
    ]
    assert list(tmp_path.iterdir()) == []


def without(part):
    def lacking(context):
        return replace(task(context), **{part: []})

    return lacking


def keeping(config):
    (arm,) = arms(config)
    return (
        replace(arm, phases=(arm.phases[0], replace(arm.phases[1], keep_teacher=True))),
    )


def reviewed(context):
    return replace(task(context), writer=PolicyFeedback(template="critic@1", **SHORT))


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("flags", "parts", "said"),
    [
        (["--policy", ""], {}, "expected a policy to train"),
        (["--attempts.group-size", "1"], {}, "group_size"),
        (["--attempts.problems", "8"], {}, "problems_per_step of 4 problems"),
        (["--attempts.problems", "3"], {}, "divisible by the 8 devices"),
        (["--attempts.max-new-tokens", "4096"], {}, "positions"),
        (["--mesh.data", "3", "--mesh.fsdp", "1"], {}, "mesh axes"),
        ([], {"task": without("evaluation")}, "expected problems held out"),
        ([], {"task": without("problems")}, "expected problems to train on, got none"),
        ([], {"arms": keeping}, "to have teachers with weights of their own"),
        ([], {"task": reviewed}, "expected one of the templates"),
    ],
)
def test_bad_settings_are_refused_before_any_weight_is_read(
    flags, parts, said, dry, policy, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(recipe, "load_pretrained", None)
    assert run(config(policy, tmp_path), *flags, *["--dry-run"] * dry, **parts) == 2
    assert said in " ".join(capsys.readouterr().out.split())
    assert list(tmp_path.iterdir()) == []


def test_problems_that_lean_does_not_understand_are_refused_as_early(
    policy, tmp_path, capsys, monkeypatch
):
    """Such as those that import Mathlib, where Lean has its core library only."""

    def broken(context):
        verifier = context.resources.enter_context(Verifier(FakeBackend, workers=1))
        problems = [replace(each, statement="theorem t : broken") for each in PROBLEMS]
        judge = LeanJudge(verifier=verifier)
        return replace(task(context), problems=problems, judge=judge)

    monkeypatch.setattr(recipe, "load_pretrained", None)
    assert run(config(policy, tmp_path), task=broken) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "expected problems that Lean understands, got none among 4 of them" in said
    assert list(tmp_path.iterdir()) == []


def test_settings_that_contradict_each_other_are_no_settings():
    with pytest.raises(ConfigError, match=r"attempts\.updates to divide .* = 8, got 3"):
        AttemptsConfig(problems=4, group_size=2, updates=3)


def test_phases_of_all_arms_have_names_of_their_own(policy, tmp_path, capsys):
    def twice(config):
        return (*arms(config), replace(arms(config)[0], name="again"))

    assert run(config(policy, tmp_path), arms=twice) == 2
    assert "different names" in capsys.readouterr().out.replace("\n", " ")


def test_the_experiment_in_the_documents_is_one(policy, tmp_path, monkeypatch, capsys):
    """A file outside the repository."""
    page = (Path(__file__).parents[2] / "docs/experiments.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "short.py").write_text(block)
    flags = ["--policy", str(policy), "--runs", str(tmp_path), "--dry-run"]
    small = ["--attempts.max-new-tokens", "8", "--attempts.feedback-tokens", "40"]
    monkeypatch.setattr(sys, "argv", ["short.py", *flags, *small])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(tmp_path / "short.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert stop.value.code == 0, said
    assert "What is 0 + 0?" in said


def test_stop_strings_end_attempts_and_would_end_reviews(policy, tmp_path, capsys):
    def one_step(config):
        phase = PhaseConfig(name="grpo", terms=(GRPO(),), steps=1, optimizer=OPTIMIZER)
        return (Arm(name="grpo", phases=(phase,)),)

    given = config(policy, tmp_path)
    ends = ("e", "o", "t", " ")
    given = replace(given, attempts=replace(given.attempts, stop_strings=ends))
    assert run(given, arms=one_step) == 0
    rows = read_metrics(tmp_path / "own" / "samples.jsonl")
    ended = [row for row in rows if any(end in row["text"] for end in ends)]
    assert len(ended) >= 2
    assert {row["ended"] for row in ended} == {"answer"}

    def reviewing(context):
        return replace(task(context), writer=PolicyFeedback(**SHORT))

    assert run(replace(given, name="reviews"), task=reviewing, arms=one_step) == 2
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "they would end its reviews, too" in said


def test_a_probe_asks_for_what_it_measures(policy, tmp_path, monkeypatch):
    """Five problems, four at a time: four, and one. Then the sampler rests."""
    asked, rests, rest = [], [], SlotSampler.rest

    def noted(sampler):
        rests.append(len(asked))
        rest(sampler)

    monkeypatch.setattr(SlotSampler, "rest", noted)

    class Noting(Longer):
        async def judge(self, attempts):
            asked.append(attempts[0][0].name)
            return await super().judge(attempts)

    def five(context):
        return replace(task(context), judge=Noting(), evaluation=PROBLEMS[:5])

    def one_step(config):
        phase = PhaseConfig(name="grpo", terms=(GRPO(),), steps=1, optimizer=OPTIMIZER)
        return (Arm(name="grpo", phases=(phase,)),)

    assert run(config(policy, tmp_path), task=five, arms=one_step) == 0
    assert sorted(asked[:5]) == ["t0", "t1", "t2", "t3", "t4"]
    base = read_probes(tmp_path / "own" / "probes.jsonl")[0]
    assert len(base["rewards"]) == 5
    assert len(asked) == 5 + 4 + 5  # before, in training, after
    assert rests == [5, 5 + 4, 5 + 4 + 5]


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_run_by_pass_rate_goes_on_as_if_never_stopped(policy, tmp_path, staleness):
    """Its second phase draws by what the first has seen, also when it is resumed."""

    class Failing:
        """Some problems are never solved; and once the judge gives up."""

        def __init__(self, last=10**9):
            self.left = last

        async def judge(self, attempts):
            self.left -= 1
            if self.left < 0:
                raise DataError("the judge is down")
            solved = attempts[0][0].name > "t2"
            # An attempt of each pair is right: there is something to learn.
            return [
                Judgement(reward=float(solved and n % 2), passed=bool(solved and n % 2))
                for n, _ in enumerate(attempts)
            ]

    def judged_by(judge):
        def all_problems(context):
            return replace(task(context), judge=judge, problems=PROBLEMS)

        return all_problems

    def two_phases(config):
        fd, grpo = arms(config)[0].phases
        return (Arm(name="both", phases=(fd, replace(grpo, steps=2))),)

    sampling = PassRateSampling(least_attempts=2, recent_attempts=2, retry_share=0)
    given = config(
        policy, tmp_path, evaluation=EvaluationConfig(samples=2, ks=(1,), teacher=False)
    )
    attempts = replace(given.attempts, sampling=sampling, staleness=staleness)
    given = replace(given, attempts=attempts)

    def left_behind(name, judge, *flags):
        code = run(
            replace(given, name=name), *flags, task=judged_by(judge), arms=two_phases
        )
        folder = tmp_path / name
        rows = [
            {key: value for key, value in row.items() if not key.startswith("time")}
            for row in read_metrics(folder / "metrics.jsonl")
        ]
        weights = folder / "policies" / "both" / "model.safetensors"
        return code, rows, weights.read_bytes() if weights.exists() else None

    code, rows, weights = left_behind("whole", Failing())
    assert code == 0
    # The first phase draws all eight, the second one leaves out three of them.
    assert [row["sampling/unsolved"] for row in rows[1:]] == [3 / 8] * 3
    samples = read_metrics(tmp_path / "whole" / "samples.jsonl")
    drawn = {row["problem"] for row in samples if row["arm"] == "after"}
    assert drawn == {problem.name for problem in PROBLEMS[3:]}
    # Two problems held out, 2 x 4 of FD, 4 of GRPO, the two again, and two of the next.
    assert left_behind("stopped", Failing(last=18))[0] == 2
    code, again, resumed = left_behind("stopped", Failing(), "--resume")
    assert (code, again, resumed) == (0, rows, weights)
