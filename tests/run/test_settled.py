"""What code makes of the settings is settled when a run begins, as its flags are."""

import json
from dataclasses import dataclass, field, replace
from functools import partial

import optax
import pytest

from fdjax.errors import ConfigError
from fdjax.feedback import (
    CompilerFeedback,
    ConstantFeedback,
    Mixture,
    ModelFeedback,
    OpenAIEndpoint,
    PolicyFeedback,
)
from fdjax.judge import Judgement, LeanJudge
from fdjax.lean import FakeBackend, Limits, Verifier
from fdjax.ops import generalized_jsd
from fdjax.run import Arm, RunConfig, Task
from fdjax.run.changes import ResumeRules
from fdjax.run.console import Display
from fdjax.run.context import run_folder
from fdjax.run.describe import described
from fdjax.run.settled import settle, settled_facts
from fdjax.train import FD, GRPO, OptimizerConfig, PhaseConfig, Plateau
from run.test_context import bought
from tiny import PROBLEMS, mesh_of


@dataclass(frozen=True)
class Counting:
    """A judge with settings."""

    longest: int = 8
    api_key: str = "sk-very-secret"
    token: str = field(default="also-secret", repr=False)

    async def judge(self, attempts):
        return [Judgement(reward=0.0)] * len(attempts)


TASK = Task(
    problems=PROBLEMS[:4],
    evaluation=PROBLEMS[4:6],
    judge=Counting(),
    writer=ConstantFeedback(text="hint"),
)
PHASE = PhaseConfig(name="fd", terms=(FD(),), steps=4)
NEXT = PhaseConfig(name="grpo", terms=(GRPO(),), steps=4)


def phases(*changed):
    return (Arm(name="both", phases=changed or (PHASE, NEXT)),)


def opened(runs, arms, task, work=lambda context: None, **settings):
    """Opens or resumes a run, and what config.json says then."""
    path = runs / "run" / "config.json"
    resume = "newest" if path.exists() else "no"
    rules = ResumeRules(phases=("fd", "grpo"))
    given = RunConfig(runs=runs, resume=resume, **settings)
    with run_folder(given, rules, Display.silent(), mesh_of()) as context:
        work(settle(context, settled_facts(arms, task)))
        return json.loads(path.read_text())


def begin(runs, *names):
    for name in names:
        for item in ("state", "host"):
            folder = runs / "run" / "checkpoints" / name / "2" / item
            folder.mkdir(parents=True)
    for rows in ("metrics.jsonl", "samples.jsonl"):
        (runs / "run" / rows).touch()


def fd(**changed):
    return phases(replace(PHASE, **changed), NEXT)


CHANGES = [
    (
        fd(optimizer=OptimizerConfig(learning_rate=0.5)),
        TASK,
        r"phases\.fd\.optimizer\.learning_rate was 0\.001, now 0\.5",
    ),
    (
        fd(terms=(FD(kl_clip=1.0),)),
        TASK,
        r"phases\.fd\.terms\.fd\.kl_clip was None, now 1\.0",
    ),
    (
        fd(until=Plateau()),
        TASK,
        r"phases\.fd\.until\.metric was None, now 'reward/mean'",
    ),
    (fd(steps=3), TASK, r"phases\.fd\.steps was 4, now 3"),
    (
        phases(replace(NEXT, name="before"), PHASE, NEXT),
        TASK,
        r"phases\.fd\.after was None, now 'before'",
    ),
    (phases(NEXT), TASK, r"phases\.fd\.steps was 4, now None"),
    (
        phases(),
        replace(TASK, judge=Counting(longest=9)),
        r"judge\.longest was 8, now 9",
    ),
    (
        phases(),
        replace(TASK, writer=ConstantFeedback(text="other")),
        r"writer\.text was 'hint', now 'other'",
    ),
    (
        phases(),
        replace(TASK, writer=CompilerFeedback()),
        r"writer\.type was 'ConstantFeedback', now 'CompilerFeedback'",
    ),
    (
        phases(),
        replace(TASK, format=replace(TASK.format, system="Prove it.")),
        r"format\.system was .*, now .Prove it\..",
    ),
]


@pytest.mark.parametrize(("arms", "task", "said"), CHANGES)
def test_what_a_phase_that_has_begun_is_made_of_may_not_change(
    tmp_path, arms, task, said
):
    opened(tmp_path, phases(), TASK)
    begin(tmp_path, "fd")
    opened(tmp_path, phases(), TASK)
    settled = json.loads((tmp_path / "run/config.json").read_text())["settled"]
    with pytest.raises(ConfigError, match=said):
        opened(tmp_path, arms, task)
    after = json.loads((tmp_path / "run/config.json").read_text())["settled"]
    assert after == settled


@pytest.mark.parametrize(
    ("begun", "arms"),
    [
        # Before anything is trained, all.
        ((), fd(optimizer=OptimizerConfig(learning_rate=0.5))),
        # A phase that has not begun; its length; another arm.
        (("fd",), phases(PHASE, replace(NEXT, terms=(GRPO(advantage="centred"),)))),
        (("fd",), fd(steps=5)),
        (("fd", "grpo"), phases(PHASE, replace(NEXT, steps=5))),
        (("fd",), (*phases(), Arm(name="o", phases=(replace(NEXT, name="other"),)))),
        # What decides no number.
        (("fd", "grpo"), fd(max_idle=50)),
    ],
)
def test_what_decided_nothing_may_change(tmp_path, begun, arms):
    opened(tmp_path, phases(), TASK)
    begin(tmp_path, *begun)
    content = opened(tmp_path, arms, TASK)
    assert content["settled"] == settled_facts(arms, TASK)


def test_a_length_that_the_next_phase_began_from_is_fixed(tmp_path):
    opened(tmp_path, phases(), TASK)
    begin(tmp_path, "fd", "grpo")
    with pytest.raises(ConfigError, match=r"phases\.fd\.steps was 4, now 5"):
        opened(tmp_path, fd(steps=5), TASK)


def test_the_history_says_what_changed(tmp_path):
    opened(tmp_path, phases(), TASK)
    begin(tmp_path, "fd")
    content = opened(tmp_path, fd(steps=5), TASK)
    assert content["resumed"][-1]["changed"]["phases.fd.steps"] == [4, 5]


def test_how_much_feedback_may_be_missing_may_change(tmp_path):
    opened(tmp_path, phases(), replace(TASK, writer=PolicyFeedback()))
    begin(tmp_path, "fd")
    patient = replace(TASK, writer=PolicyFeedback(max_missing_share=0.9))
    opened(tmp_path, phases(), patient)
    with pytest.raises(ConfigError, match=r"writer\.per was 'attempt', now 'group'"):
        opened(tmp_path, phases(), replace(TASK, writer=PolicyFeedback(per="group")))


def test_a_run_of_an_earlier_version_says_it_from_now_on(tmp_path):
    opened(tmp_path, phases(), TASK)
    path = tmp_path / "run/config.json"
    content = json.loads(path.read_text())
    del content["settled"]
    path.write_text(json.dumps(content))
    begin(tmp_path, "fd")
    assert opened(tmp_path, fd(steps=9), TASK)["settled"]["phases"]["fd"]["steps"] == 9


def test_the_journal_of_another_judge_does_not_count(tmp_path):
    def bought_anew(task):
        asked = []
        opened(tmp_path, phases(), task, lambda context: asked.append(bought(context)))
        return asked

    assert bought_anew(TASK) == [1]
    assert bought_anew(TASK) == [0]
    assert bought_anew(replace(TASK, judge=Counting(longest=9))) == [1]


def test_no_key_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-ours")
    model = ModelFeedback(endpoint=OpenAIEndpoint(model="m"))
    writer = Mixture(writers=(model.make(), CompilerFeedback()), weights=(1.0, 1.0))
    opened(tmp_path, phases(), replace(TASK, writer=writer))
    text = (tmp_path / "run/config.json").read_text()
    for secret in ("sk-very-secret", "also-secret", "a-key-of-ours"):
        assert secret not in text
    assert '"model": "m"' in text


def keyed(key):
    return lambda problem, text: key


def test_objects_are_described_by_what_decides_what_they_do():
    with Verifier(FakeBackend, workers=1, limits=Limits(wall_s=3)) as verifier:
        judge = described(LeanJudge(verifier=verifier))
    assert judge["verifier"]["backend"] == "FakeBackend"
    assert judge["verifier"]["limits"]["wall_s"] == 3
    assert judge["extract"] == "whole_text"
    schedule = described(optax.linear_schedule(0.25, 1.0, 7))
    assert {0.25, 1.0, 7} <= set(schedule.values())
    jsd = described(FD(divergence=partial(generalized_jsd, alpha=0.3)))["divergence"]
    assert jsd == {"type": "generalized_jsd", "alpha": 0.3}
    # What is named nowhere may be a secret; and settings are written elsewhere.
    assert described(keyed("secret")) == {"type": "keyed.<locals>.<lambda>"}
    assert described(["secret"]) == ["(hidden)"]
    assert described({"now": RunConfig()}) == {"now": "RunConfig"}
