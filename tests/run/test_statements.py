"""Statements that Lean does not understand are told before anything is trained."""

from dataclasses import replace

import pytest
from rich.console import Console

from fdjax.errors import BackendError, ConfigError
from fdjax.feedback import CompilerFeedback
from fdjax.judge import LeanJudge
from fdjax.lean import FakeBackend, Verifier
from fdjax.run import Task
from fdjax.run.console import Display
from fdjax.run.statements import check_statements
from tiny import PROBLEMS


def worded(problems, broken):
    """Problems of which some have a statement that `FakeBackend` does not take."""
    return [
        replace(each, statement=f"theorem {each.name} : broken")
        if place in broken
        else each
        for place, each in enumerate(problems)
    ]


def checked(problems, evaluation, backend=FakeBackend):
    """What is said of them."""
    display = Display(Console(width=1000))
    with Verifier(backend, workers=1) as verifier, display.console.capture() as said:
        task = Task(
            problems=problems,
            evaluation=evaluation,
            judge=LeanJudge(verifier=verifier),
            writer=CompilerFeedback(),
        )
        check_statements(task, display)
    return said.get()


@pytest.mark.parametrize(
    ("problems", "evaluation", "said"),
    [
        (range(8), (), "expected problems that Lean understands, got none among 4"),
        ((), range(2), "expected problems held out that Lean understands, got none"),
    ],
)
def test_a_set_without_a_statement_is_refused(problems, evaluation, said):
    with pytest.raises(ConfigError, match=said) as refused:
        checked(worded(PROBLEMS, problems), worded(PROBLEMS[:2], evaluation))
    assert "the statement does not elaborate" in str(refused.value)
    assert "lean:native --lean.project" in str(refused.value)


def test_some_faults_are_said():
    # Of eight problems the first, third, fifth and seventh are looked at.
    said = checked(worded(PROBLEMS, {0, 1, 4}), PROBLEMS[:2])
    assert "2 of 4 problems are at fault" in said
    assert "among them t0: the statement does not elaborate" in said
    assert "held out" not in said
    assert checked(PROBLEMS, PROBLEMS[:2]) == ""


def test_an_outage_is_left_to_the_run(caplog):
    def down(request):
        raise BackendError("no route to the server")

    assert checked(PROBLEMS, PROBLEMS[:2], lambda: FakeBackend(down)) == ""
    assert "are not checked: no route to the server" in caplog.text
