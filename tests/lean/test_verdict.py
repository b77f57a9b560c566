"""Every missing fact stops a proof from being VERIFIED; JSON keeps all fields."""

import json
import math
from dataclasses import replace

import pytest

from fdjax.errors import ConfigError
from fdjax.lean import Diagnostic, Goal, Limits, RawReport, Status, Target, Verdict
from fdjax.lean.judge import judge
from fdjax.lean.source import splice

SOURCE = splice("theorem t : True", "  trivial")
GOOD = Target(is_theorem=True, matches_statement=True, axioms=("propext",))


def status(report):
    return judge(report, SOURCE).status


def test_all_facts_together_verify():
    verdict = judge(RawReport(target=GOOD, seconds=0.5), SOURCE)
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
    )
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict
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
