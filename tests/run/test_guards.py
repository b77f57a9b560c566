"""Faults put into a run: each guard writes an event, warns, or ends it saved.

Five runs of a few iterations, some seconds of processor time each; what alarms do on
made-up rows is in `tests/train/test_alarms.py`, NaN in `tests/train/test_dumps.py`.
"""

import re
from contextlib import nullcontext

import jax
import pytest

from fdjax.feedback import ConstantFeedback, Feedback
from fdjax.feedback.failure import Kind
from fdjax.judge import Judgement, LeanJudge
from fdjax.lean import FakeBackend, RunRequest, Status, Verdict, Verifier
from fdjax.lean.backends.fake import accepted, rejected
from fdjax.metrics import read_events, read_metrics
from fdjax.run import (
    Arm,
    AttemptsConfig,
    EvaluationConfig,
    PolicyConfig,
    RunConfig,
    Task,
    experiment,
)
from fdjax.train import FD, GRPO, GuardsConfig, OptimizerConfig, PhaseConfig
from tiny import PROBLEMS


class Judging:
    """A reward by the attempt's place in its group; without any it crashes."""

    def __init__(self, *rewards):
        self._rewards = rewards

    async def judge(self, attempts):
        if not self._rewards:
            crashed = Verdict(status=Status.CRASHED, reason="no memory")
            return [Judgement.by_lean(crashed, "") for _ in attempts]
        return [
            Judgement(reward=reward, verdict=Verdict(status=Status.REJECTED))
            for _, reward in zip(attempts, self._rewards, strict=True)
        ]


class Silent:
    async def write(self, group):
        return [Feedback.failed(Kind.REFUSAL, "no") for _ in group]


FAIR = Judging(1.0, 0.0)


def run(policy, runs, *flags, judge=FAIR, writer=None, term=None, rate=1e-2, **guards):
    """The exit code of a run of one phase of four iterations."""
    config = RunConfig(
        runs=runs,
        policy=PolicyConfig(source=str(policy), dtype="float32"),
        attempts=AttemptsConfig(
            problems=4, group_size=2, max_new_tokens=8, feedback_tokens=16
        ),
        evaluation=EvaluationConfig(samples=2, ks=(1,), teacher=False),
        guards=GuardsConfig(**({"patience": 2, "finished": 0.0} | guards)),
    )

    def task(context):
        return Task(
            problems=PROBLEMS[:4],
            evaluation=PROBLEMS[4:6],
            judge=judge(context) if callable(judge) else judge,
            writer=writer or ConstantFeedback(text="hint"),
        )

    def arms(config):
        phase = PhaseConfig(
            name="phase",
            terms=(term or GRPO(),),
            steps=4,
            optimizer=OptimizerConfig(learning_rate=rate),
        )
        return (Arm(name="arm", phases=(phase,)),)

    return experiment(config, task=task, arms=arms, arguments=list(flags))


def events(runs):
    return [
        (row["step"], row["guard"], row["metric"], row["action"])
        for row in read_events(runs / "run" / "events.jsonl")
    ]


def said(capsys):
    return re.sub(r"\s+", " ", capsys.readouterr().out)


def test_a_verifier_that_crashes_ends_the_run_and_mended_it_goes_on(
    policy, tmp_path, capsys
):
    assert run(policy, tmp_path, judge=Judging()) == 2
    out = said(capsys)
    assert "expected verdict/crashed to be at most 0.5, got 1, 2 rows in a row" in out
    assert "run `fdjax doctor`" in out
    assert "The state after 2 iterations is saved" in out
    stop = (2, "crashed", "verdict/crashed", "stop")
    assert events(tmp_path) == [stop]
    assert run(policy, tmp_path, "--resume") == 0
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["verdict/crashed"] for row in rows] == [1.0, 1.0, 0.0, 0.0]
    assert events(tmp_path) == [stop]


def test_a_writer_that_fails_ends_the_run(policy, tmp_path, capsys):
    assert run(policy, tmp_path, writer=Silent(), term=FD()) == 2
    assert events(tmp_path) == [(2, "feedback", "feedback/missing", "stop")]
    assert "feedback_error in samples.jsonl say how" in said(capsys)


def test_equal_rewards_are_warned_of_once_and_an_iteration_is_traced(
    policy, tmp_path, caplog, monkeypatch
):
    traced = []
    # A real trace of a whole iteration takes a minute here; `test_profile.py` has one.
    monkeypatch.setattr(
        jax.profiler, "trace", lambda path: traced.append(path) or nullcontext()
    )
    flags = ("--profile", "2")
    assert run(policy, tmp_path, *flags, judge=Judging(1.0, 1.0), finished=0.5) == 0
    # A policy that knows nothing does not end its attempts either.
    assert events(tmp_path) == [
        (2, "equal_groups", "advantages/live_groups", "warn"),
        (2, "length", "rollout/finished", "warn"),
    ]
    warned = [text for text in caplog.messages if text.startswith("Guard ")]
    assert len(warned) == 2
    assert "attempts.group_size" in warned[0]
    assert traced == [str(tmp_path / "run" / "profile" / "phase" / "2")]


def test_a_policy_that_collapses_is_noticed(policy, tmp_path):
    """Steps of size 3 leave one token for every prompt."""
    code = run(
        *(policy, tmp_path),
        term=FD(),
        rate=3.0,
        median_of=1,
        patience=1,
        off=("length",),
    )
    assert code == 0
    found = {(guard, action) for _, guard, _, action in events(tmp_path)}
    assert found == {("kl", "warn"), ("entropy", "warn"), ("marginal_entropy", "warn")}


class Lean:
    """A Lean that knows the canaries, and after a while accepts all of them."""

    def __init__(self, honest=10**9):
        self.left = honest

    def __call__(self, request):
        if isinstance(request, RunRequest) or request.proof is None:
            return rejected()
        if request.name.startswith("canary"):
            self.left -= 1
            if self.left < 0:
                return accepted()
        if "sorry" in request.proof:
            return accepted("sorryAx")
        known = ("omega", "Nat.add_comm")
        return accepted() if any(map(request.proof.count, known)) else rejected()


@pytest.mark.parametrize("honest", [0, 5])
def test_a_verifier_that_lies_ends_the_run(policy, tmp_path, capsys, honest):
    """From the first time, before anything is trained; or later, and it is saved."""

    def judged_by(lean):
        def judge(context):
            verifier = Verifier(lambda: FakeBackend(lean), workers=1)
            return LeanJudge(verifier=context.resources.enter_context(verifier))

        return judge

    settings = {"canary_every": 2, "off": ("equal_groups",)}
    assert run(policy, tmp_path, judge=judged_by(Lean(honest)), **settings) == 2
    out = said(capsys)
    assert "expected canaries/wrong to be at most 0, got 0.5" in out
    assert "a wrong proof: verified; a false statement: verified; sorry" in out
    if not honest:
        assert not (tmp_path / "run").exists()
        return
    assert events(tmp_path) == [(2, "canaries", "canaries/wrong", "stop")]
    assert run(policy, tmp_path, "--resume", judge=judged_by(Lean()), **settings) == 0
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
