"""Verdicts to rewards, and completions without an answer."""

import asyncio

import pytest

from fdjax.errors import BackendError, DataError
from fdjax.judge import Answer, Judgement, LeanJudge
from fdjax.lean import FakeBackend, Status, Verdict, Verifier
from fdjax.lean.backends.fake import accepted
from fdjax.records import Problem

PROBLEM = Problem(name="t", statement="theorem t : True")


@pytest.mark.parametrize(
    ("verdict", "reward"),
    [
        (Verdict(status=Status.VERIFIED), 1.0),
        (Verdict(status=Status.REJECTED), 0.0),
        (Verdict(status=Status.UNSAFE), 0.0),
        (Verdict(status=Status.TIMEOUT), 0.0),
        (Verdict(status=Status.CRASHED), None),
        (Verdict(status=Status.REJECTED, broken_statement=True), None),
    ],
)
def test_rewards(verdict, reward):
    judgement = Judgement.by_lean(verdict, "  rfl")
    assert judgement.reward == reward
    assert judgement.missing == (reward is None)
    assert judgement.passed == (reward == 1.0)


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_a_reward_is_a_number_or_missing(reward):
    with pytest.raises(DataError, match="finite reward"):
        Judgement(reward=reward)


def fenced(problem, text):
    """An answer is what stands behind a colon."""
    before, colon, after = text.partition(":")
    if not colon:
        return Answer(submission=None, reason="there is no colon")
    return Answer(submission=after, start=len(before) + 1)


def judged(texts, check=lambda request: accepted(), problem=PROBLEM):
    with Verifier(lambda: FakeBackend(check), workers=1) as verifier:
        judge = LeanJudge(verifier=verifier, extract=fenced)
        return asyncio.run(judge.judge([(problem, text) for text in texts]))


def test_a_completion_without_an_answer_is_rejected_unseen():
    asked = []
    answered, silent = judged(
        ["so:  rfl", "rfl"], lambda request: asked.append(request) or accepted()
    )
    assert (answered.answer, answered.start, answered.reward) == ("  rfl", 3, 1.0)
    assert (silent.answer, silent.reward) == ("", 0.0)
    assert (answered.answerless, silent.answerless) == (False, True)
    assert silent.reason == "no answer: there is no colon"
    assert [request.proof for request in asked] == ["  rfl"]


def test_no_answers_at_all_ask_nobody():
    (silent,) = judged(["rfl"], lambda request: pytest.fail("asked"))
    assert silent.reward == 0.0


def test_an_outage_leaves_missing_answers_missing_where_nothing_was_decided():
    def down(request):
        raise BackendError("no route")

    judgements = judged(["a:b", "c"], down)
    assert [each.reward for each in judgements] == [None, None]
    assert [each.answerless for each in judgements] == [False, True]


def test_a_broken_statement_costs_missing_answers_too():
    broken = Problem(name="b", statement="theorem b : broken")
    with Verifier(FakeBackend, workers=1) as verifier:
        judge = LeanJudge(verifier=verifier, extract=fenced)
        attempts = [(broken, "x:  rfl"), (broken, "x")]
        judgements = asyncio.run(judge.judge(attempts))
    assert [each.reward for each in judgements] == [None, None]
