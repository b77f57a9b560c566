"""What stays of a run that fails, and what a resumed one finds of it."""

import asyncio
from dataclasses import replace

import pytest

from fdjax.feedback import Attempt, Feedback
from fdjax.judge import Judgement
from fdjax.run import RunConfig
from fdjax.run.changes import ResumeRules
from fdjax.run.console import Display
from fdjax.run.context import run_folder
from tiny import PROBLEMS, mesh_of

RULES = ResumeRules(
    phases=("fd",), fixed_by={"name": (), "runs": ()}, grows={"seed": ()}
)
SAID = [Feedback(parts=("Well done.",))]


def bought(context):
    """What a writer says of an attempt, and how often it was asked."""
    asked = []

    async def ask():
        asked.append(1)
        return SAID

    attempt = Attempt(problem=PROBLEMS[0], text="x", judgement=Judgement(reward=0.0))
    page = context.journal.page("fd", 0)
    assert asyncio.run(page.feedback(0, [attempt], ask)) == SAID
    return len(asked)


def opened(config):
    return run_folder(config, RULES, Display.silent(), mesh_of())


def fail(config, work):
    with opened(config) as context:
        work(context)
        raise ValueError("oh no")


def failed(config, work=lambda context: None):
    """The notes on the error of a run that does some work and fails."""
    with pytest.raises(ValueError, match="oh no") as raised:
        fail(config, work)
    return " ".join(getattr(raised.value, "__notes__", ()))


def test_nothing_stays_of_a_run_that_did_nothing(tmp_path):
    failed(RunConfig(runs=tmp_path))
    assert not (tmp_path / "run").exists()


def test_feedback_that_was_bought_before_any_training_stays(tmp_path):
    config = RunConfig(runs=tmp_path)
    assert "goes on with --resume" in failed(config, bought)
    resumed = replace(config, resume="newest")
    for changes, again in (
        ({}, 0),
        # What may change at any time decides nothing.
        ({"seed": 7}, 0),
        ({"only": ("fd",)}, 1),
    ):
        with opened(replace(resumed, **changes)) as context:
            assert bought(context) == again
    with opened(resumed) as context:
        context.saved("fd")
        assert bought(context) == 0
        (context.folder / "checkpoints" / "fd" / "1" / "state").mkdir(parents=True)
        context.saved("fd")
        assert bought(context) == 1
