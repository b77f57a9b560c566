"""Files that need prove nothing, without Lean; with it see test_contract."""

from dataclasses import replace

import pytest

from fdjax.lean import (
    FakeBackend,
    RawReport,
    RunRequest,
    Verifier,
    WorkerDiedError,
)
from fdjax.lean.backends.fake import rejected


def test_progress_counts_what_was_refused_and_what_ran():
    seen = []
    with Verifier(FakeBackend, workers=1) as verifier:
        verifier.elaborate(["#eval 1", "trivial", "open"], seen.append)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(
    ("report", "ended", "complete"),
    [
        (RawReport(timed_out=True), "timeout", True),
        (RawReport(out_of_memory=True), "memory", True),
        (RawReport(refused="macro"), "unsafe", True),
        (RawReport(has_errors=True), "done", False),
        (RawReport(left_out=True), "done", False),
        (rejected(), "done", True),
        (replace(rejected(), left_out=True), "done", False),
    ],
)
def test_reports_of_runs(report, ended, complete):
    with Verifier(lambda: FakeBackend(lambda _: report), workers=1) as verifier:
        [elaboration] = verifier.elaborate([""])
    assert (elaboration.ended, elaboration.complete) == (ended, complete)


def test_observe_gives_facts_or_raises():
    def answer(request):
        if "die" in request.source:
            raise WorkerDiedError("killed")
        return rejected()

    with Verifier(lambda: FakeBackend(answer), workers=1) as verifier:
        assert verifier.observe(RunRequest(source="")) == rejected()
        with pytest.raises(WorkerDiedError, match="killed"):
            verifier.observe(RunRequest(source="die"))
