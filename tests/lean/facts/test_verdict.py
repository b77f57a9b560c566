"""Every missing fact stops a proof from being VERIFIED; JSON keeps all fields."""

import json
import math
from dataclasses import replace

import pytest

from fdjax.errors import ConfigError
from fdjax.lean import (
    CheckRequest,
    Diagnostic,
    Goal,
    Limits,
    RawReport,
    Status,
    Target,
    Verdict,
)
from fdjax.lean.facts.backend import RawMessage
from fdjax.lean.facts.judge import judge

REQUEST = CheckRequest(
    name="t", header="open Nat in\n", statement="theorem t : True", proof="  trivial"
)
GOOD = Target(is_theorem=True, matches_statement=True, axioms=("propext",))


def status(report):
    return judge(report, REQUEST).status


def test_all_facts_together_verify():
    verdict = judge(RawReport(target=GOOD, seconds=0.5), REQUEST)
    assert verdict.verified
    assert verdict.axioms == ("propext",)
    assert verdict.seconds == 0.5
    assert verdict.reason == ""


@pytest.mark.parametrize(
    "axiom",
    [
        "sorryAx",
        "Lean.ofReduceBool",
        "propext'",
        "Classical.choice'",
        "«propext, Quot.sound»",
        "target.cheat",
    ],
)
def test_a_foreign_axiom_rejects(axiom):
    target = replace(GOOD, axioms=("propext", axiom))
    assert status(RawReport(target=target)) is Status.REJECTED


def test_each_missing_fact_rejects():
    assert status(RawReport()) is Status.REJECTED
    assert status(RawReport(target=GOOD, has_errors=True)) is Status.REJECTED
    for change in ({"is_theorem": False}, {"matches_statement": False}):
        assert status(RawReport(target=replace(GOOD, **change))) is Status.REJECTED


def test_limits_and_refusals_come_first():
    assert status(RawReport(target=GOOD, timed_out=True)) is Status.TIMEOUT
    assert status(RawReport(target=GOOD, out_of_memory=True)) is Status.TIMEOUT
    assert status(RawReport(target=GOOD, left_proof=True)) is Status.UNSAFE
    assert status(RawReport(target=GOOD, refused="runTac")) is Status.UNSAFE


def test_an_empty_proof_is_rejected_whatever_else_is_reported():
    verdict = judge(RawReport(target=GOOD, no_proof=True), REQUEST)
    assert verdict.status is Status.REJECTED
    assert verdict.reason == "there is no proof behind `:= by`"
    assert not verdict.missing


def test_a_broken_statement_says_nothing_about_the_proof():
    report = RawReport(statement_error="it does not elaborate", target=GOOD)
    verdict = judge(report, REQUEST)
    assert verdict.status is Status.REJECTED
    assert (verdict.broken_statement, verdict.missing) == (True, True)
    assert verdict.reason == "it does not elaborate"
    assert Verdict(status=Status.CRASHED).missing
    assert not Verdict(status=Status.TIMEOUT).missing


def test_a_header_that_ends_inside_a_command_has_a_remedy():
    # The header's text ends in line 2, column 0.
    message = RawMessage(severity="error", line=2, column=0, text="end of input")
    report = RawReport(statement_error="broken", in_header=True, messages=(message,))
    verdict = judge(report, REQUEST)
    assert "`… in` or attributes before the theorem belong to" in verdict.reason
    assert "(broken)" in verdict.reason
    [diagnostic] = verdict.diagnostics
    assert (diagnostic.in_proof, diagnostic.line) == (False, 2)


def test_json_round_trip():
    diagnostic = Diagnostic(severity="error", line=1, column=2, kind="k", text="⊢ é")
    verdict = Verdict(
        status=Status.REJECTED,
        diagnostics=(diagnostic, replace(diagnostic, in_proof=False, end_line=3)),
        goals=(Goal(text="⊢ p", line=1, column=2),),
        axioms=("sorryAx",),
        seconds=0.25,
        reason="because",
        cached=True,
        broken_statement=True,
    )
    values = json.loads(json.dumps(verdict.to_dict()))
    assert Verdict.from_dict(values) == verdict
    del values["broken_statement"]  # as version 0.1 wrote it
    assert Verdict.from_dict(values) == replace(verdict, broken_statement=False)
    assert verdict.errors == verdict.diagnostics


@pytest.mark.parametrize(
    "values",
    [
        {"wall_s": 0.0},
        {"wall_s": math.nan},
        {"wall_s": math.inf},
        {"heartbeats": -1},
        {"heartbeats": 10**22},
        {"memory_mb": 64},
        {"output_bytes": -1},
    ],
)
def test_senseless_limits_are_refused(values):
    with pytest.raises(ConfigError, match="expected"):
        Limits(**values)


def test_what_time_or_a_failure_decided_does_not_last():
    lasting = [status for status in Status if Verdict(status=status).lasting]
    assert lasting == [Status.VERIFIED, Status.REJECTED, Status.UNSAFE]
    assert not Verdict(status=Status.REJECTED, broken_statement=True).lasting
