"""Files that need prove nothing, without Lean; with it see test_contract."""

import threading
from dataclasses import replace

import pytest

from fdjax.errors import BackendError
from fdjax.lean import (
    FakeBackend,
    RawReport,
    RunRequest,
    Verifier,
    WorkerDiedError,
)
from fdjax.lean.fake import rejected


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


def test_closing_ends_a_call_that_waits_for_its_turn():
    running, go = threading.Event(), threading.Event()

    def answer(request):
        running.set()
        go.wait(10)
        return RawReport()

    verifier = Verifier(lambda: FakeBackend(answer), workers=1)
    outcomes = []

    def call():
        try:
            outcomes.append(verifier.elaborate(["one", "two", "three"]))
        except BackendError as error:
            outcomes.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    running.wait(10)
    closer = threading.Thread(target=verifier.close)
    closer.start()
    go.set()
    closer.join(10)
    caller.join(10)
    assert not caller.is_alive()
    assert "closed" in str(outcomes[0])


def test_a_report_that_fills_a_pipe_arrives_whole(verifier):
    """A pipe holds 64 KiB; a report is somewhat larger than the text in it."""
    source = f"theorem t ({'h' * 70_000} : 1 = 1) : 2 = 2 := rfl"
    for _ in range(5):
        [elaboration] = verifier.elaborate([source])
        assert elaboration.ended == "done"
        [warning] = elaboration.diagnostics
        assert len(warning.text) == verifier.limits.output_bytes
