"""What an evaluation counts when attempts cannot be sampled, judged or informed."""

import math

import jax
import pytest

import scripted
from fdjax.errors import BackendError
from fdjax.eval import evaluate_arm, evaluate_teacher
from fdjax.feedback import Feedback
from fdjax.judge import LeanJudge
from fdjax.lean import FakeBackend, Verifier
from fdjax.lean.backends.fake import accepted
from fdjax.records import Problem
from scripted import Scripted
from tiny import PROBLEMS

LONG = Problem(name="long", statement=f"theorem long : {'p ∧ ' * 60}p")
BROKEN = Problem(name="b", statement="theorem b : broken")


NOTES = {
    "t0": Feedback(parts=("a hint that fits",)),
    "t1": Feedback(parts=("error " * 60,)),  # it does not
    "t2": Feedback(error="no answer"),
}


class Notes:
    async def write(self, group):
        return [NOTES[attempt.problem.name] for attempt in group]


def pipeline(verifier, proofs, width=64):
    """Samples given proofs, whatever the prompts are."""
    return scripted.pipeline(
        Scripted(proofs), LeanJudge(verifier=verifier), Notes(), width=width
    )


def test_attempts_that_cannot_be_made_are_missing_not_failed():
    problems = [PROBLEMS[0], LONG, BROKEN]
    with Verifier(FakeBackend, workers=1) as verifier:
        result = evaluate_arm(
            "arm",
            None,
            problems,
            pipeline(verifier, ["  trivial"] * 6),
            jax.random.key(0),
            samples=2,
            problems_per_batch=3,
        )
    assert result.successes == (2, 0, 0)
    assert result.missing == (0, 2, 2)


def test_only_a_teacher_that_reads_feedback_is_measured_as_one():
    """Of three theorems one has feedback that fits; the others count for neither."""
    with Verifier(FakeBackend, workers=1) as verifier:
        result = evaluate_teacher(
            None,
            PROBLEMS[:3],
            pipeline(verifier, ["  skip"] * 6),
            pipeline(verifier, ["  trivial"] * 2 + ["  skip"] * 4, width=96),
            jax.random.key(0),
            samples=2,
        )
    assert result.without_feedback.value == 0.0
    assert result.with_feedback == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("down", [True, False])
def test_a_teacher_that_cannot_be_measured_is_no_number(down):
    def check(request):
        if down:
            raise BackendError("no route to the server")
        return accepted()

    with Verifier(lambda: FakeBackend(check), workers=1) as verifier:
        both = pipeline(verifier, ["  trivial"] * 2)
        problems = PROBLEMS[:1] if down else PROBLEMS[2:3]
        result = evaluate_teacher(
            None, problems, both, both, jax.random.key(0), samples=2
        )
    assert math.isnan(result.with_feedback.value)
    assert math.isnan(result.without_feedback.value) == down
