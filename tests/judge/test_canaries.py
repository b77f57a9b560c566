"""Proofs whose verdict is known, through a verifier that is right, wrong or down."""

import asyncio

import pytest

from fdjax.judge import CanaryReport, LeanJudge, check_canaries, last_fence
from fdjax.lean import FakeBackend, RawReport, Verifier, WorkerDiedError
from fdjax.lean.backends.fake import accepted, rejected


def report(verifier, salt="1"):
    # The format of a run's answers is none of their business.
    judge = LeanJudge(verifier=verifier, extract=last_fence)
    return asyncio.run(check_canaries(judge, salt=salt))


def asked(answer, calls=1):
    backend = FakeBackend(answer)
    with Verifier(lambda: backend, workers=1) as verifier:
        found = [report(verifier, salt=str(call)) for call in range(calls)]
    return found[-1], backend.requests


def test_lean_decides_them_as_it_must(verifier):
    assert report(verifier) == CanaryReport(asked=6)


def test_lean_decides_them_below_the_headers_of_problems(verifier):
    judge = LeanJudge(verifier=verifier)
    header = "set_option maxHeartbeats 400000\nopen Nat"
    found = asyncio.run(check_canaries(judge, salt="1", header=header))
    assert found == CanaryReport(asked=6)


def test_accepting_everything_is_wrong():
    found, _ = asked(lambda request: accepted())
    assert [text.partition(":")[0] for text in found.wrong] == [
        "a wrong proof",
        "a false statement",
        "sorry",
    ]
    assert found.wrong_share == 0.5


def test_rejecting_everything_is_wrong():
    found, _ = asked(lambda request: rejected())
    assert [text.partition(":")[0] for text in found.wrong] == [
        "a proof by tactics",
        "a proof by a term",
    ]


def down(request):
    raise WorkerDiedError("killed")


def slow(request):
    return RawReport(timed_out=True, seconds=60.0)


@pytest.mark.parametrize("answer", [down, slow])
def test_no_verdict_is_no_wrong_verdict(answer):
    found, _ = asked(answer)
    assert found.wrong == ()
    assert found.wrong_share == 0.0
    assert len(found.undecided) >= 5


class Hanging(LeanJudge):
    """Answers for true statements alone."""

    async def judge(self, attempts):
        if "= 5" in attempts[0][0].statement:
            await asyncio.sleep(60)
        return await super().judge(attempts)


def test_what_hangs_is_undecided_at_the_deadline():
    with Verifier(lambda: FakeBackend(lambda request: accepted()), workers=1) as made:
        judge = Hanging(verifier=made)
        found = asyncio.run(check_canaries(judge, salt="1", deadline_s=2.0))
    assert [text.partition(":")[0] for text in found.wrong] == ["a wrong proof"]
    assert found.undecided == (
        "a false statement: no verdict within 2 s",
        "sorry: no verdict within 2 s",
        "compiled code as a proof: no verdict within 2 s",
    )


def test_each_time_lean_is_asked_anew():
    """The cache of verdicts would answer for a verifier that has changed since."""
    _, once = asked(lambda request: rejected())
    _, twice = asked(lambda request: rejected(), calls=2)
    assert len(twice) == 2 * len(once) > 0


def test_reports_of_processes_add_up():
    both = CanaryReport(asked=6, wrong=("a",)) + CanaryReport(asked=6, undecided=("b",))
    assert both == CanaryReport(asked=12, wrong=("a",), undecided=("b",))
    assert both.wrong_share == 1 / 11
