"""Real Lean: theorems are verified, failures and attacks never are."""

import json
import os
import re
from pathlib import Path

import pytest

from fdjax.lean import CheckRequest, Limits, Status, WorkerDiedError
from fdjax.lean.judge import judge
from fdjax.lean.source import splice
from lean.corpus import (
    BEHIND_THE_SCAN,
    FAILURES,
    FALSE,
    GIVING_UP,
    THEOREMS,
    UNSAFE,
    problem,
)


def names(pairs):
    return [f"{index}-{pair[0].name}" for index, pair in enumerate(pairs)]


@pytest.mark.parametrize("item", THEOREMS, ids=names(THEOREMS))
def test_theorems_are_verified(verifier, item):
    [verdict] = verifier.verify([item])
    assert verdict.status is Status.VERIFIED, verdict


@pytest.mark.parametrize("item", FAILURES, ids=names(FAILURES))
def test_failures_are_rejected_with_an_error(verifier, item):
    [verdict] = verifier.verify([item])
    assert verdict.status is Status.REJECTED
    assert verdict.errors


@pytest.mark.parametrize("proof", GIVING_UP)
def test_giving_up_shows_in_the_axioms(verifier, proof):
    [verdict] = verifier.verify([(FALSE, proof)])
    assert verdict.status is Status.REJECTED
    assert "sorryAx" in verdict.axioms


def test_attacks_are_unsafe(verifier):
    verdicts = verifier.verify([(FALSE, proof) for proof in UNSAFE])
    assert {verdict.status for verdict in verdicts} == {Status.UNSAFE}


@pytest.mark.parametrize(("proof", "field"), BEHIND_THE_SCAN)
def test_the_host_stops_attacks_by_itself(backend, proof, field):
    report = backend.check(request(FALSE, proof))
    assert getattr(report, field)
    assert judge(report, splice(FALSE.statement, proof)).status is Status.UNSAFE


@pytest.mark.parametrize("proof", UNSAFE[:-3] + GIVING_UP)
def test_without_any_scan_no_attack_is_verified(backend, proof):
    report = backend.check(request(FALSE, proof))
    assert not judge(report, splice(FALSE.statement, proof)).verified


def test_messages_positions_goals(verifier):
    statement = "theorem t (p q : Prop) (hp : p) (hq : q)\n    : p ∧ q"
    proof = "  constructor\n  · exact hp\n  · exact hp"
    [verdict] = verifier.verify([(problem(statement), proof)])
    [error] = verdict.errors
    # `exact hp` on the proof's third line, after two spaces, a bullet and a space.
    assert (error.line, error.column) == (3, 4)
    assert (error.end_line, error.end_column) == (3, 12)
    assert error.in_proof
    assert "mismatch" in error.text
    [verdict] = verifier.verify([(problem(statement), "  constructor")])
    assert [goal.text.splitlines()[-1] for goal in verdict.goals] == ["⊢ p", "⊢ q"]
    assert (verdict.errors[0].line, verdict.errors[0].column) == (1, 0)
    assert verdict.errors[0].kind == "Tactic.unsolvedGoals"


@pytest.mark.parametrize(
    ("statement", "header", "reason"),
    [
        ("theorem t (x : ℕ) : x = x", "", "ℕ"),
        ("theorem t : True := trivial\ntheorem u : True", "", "more than one command"),
        ("def t : Nat", "", "declares no theorem"),
        ("theorem other : True", "", "declares no theorem t"),
        ("theorem t : True", "import Mathlib", "no module Mathlib"),
        ("theorem t : True", "axiom", "the header does not elaborate"),
        ("theorem t : True", "theorem t : True := trivial", "already"),
    ],
)
def test_broken_trusted_source_is_named(verifier, statement, header, reason):
    broken = type(FALSE)(name="t", statement=statement, header=header)
    [report] = verifier.check_statements([broken])
    assert not report.ok
    assert reason in report.reason


def test_an_imported_module_of_the_library_is_available(verifier):
    source = problem("theorem t : (∅ : Std.HashSet Nat).size = 0", "import Std")
    [verdict] = verifier.verify([(source, "  rfl")])
    [report] = verifier.check_statements([source])
    assert report.ok
    assert verdict.status in (Status.VERIFIED, Status.REJECTED)


# ---- samples that are not part of the project


def rows(name):
    folder = os.environ.get("FDJAX_TEST_DATA")
    if folder is None:
        pytest.skip("FDJAX_TEST_DATA names no folder with sample data")
    lines = Path(folder, name).read_text().splitlines()
    return [json.loads(line) for line in lines]


def sample(statement):
    name = re.search(r"theorem\s+(\S+)", statement).group(1)
    return type(FALSE)(name=name, statement=statement)


@pytest.mark.parametrize(
    "name", ["core_theorems_sample.jsonl", "benign_controls_sample.jsonl"]
)
def test_sample_theorems_are_verified(verifier, name):
    items = [(sample(row["statement"]), row["proof"]) for row in rows(name)]
    verdicts = verifier.verify(items)
    assert [
        (item[0].name, verdict.reason)
        for item, verdict in zip(items, verdicts, strict=True)
        if not verdict.verified
    ] == []


def test_sample_failures_give_the_recorded_errors(verifier):
    data = rows("failing_proofs_sample.jsonl")
    problems = [sample(row["statement"]) for row in data]
    usable = [report.ok for report in verifier.check_statements(problems)]
    # One sample fails in its statement, which is not a failed proof.
    assert usable.count(False) == 1
    for row, target, ok in zip(data, problems, usable, strict=True):
        if not ok:
            continue
        [verdict] = verifier.verify([(target, row["proof"])])
        recorded = [m for m in row["messages"] if m["severity"] == "error"]
        assert verdict.status is Status.REJECTED
        found = [error.text for error in verdict.errors]
        assert found == [message["data"] for message in recorded], row["name"]
        lines = target.statement.count("\n") + 1
        for message, error in zip(recorded, verdict.errors, strict=True):
            if message["pos"]["line"] > lines:
                position = message["pos"]["line"] - lines, message["pos"]["column"]
                assert (error.line, error.column) == position


def test_sample_attacks_are_never_verified(verifier):
    data = rows("exploits_sample.jsonl")
    items = [(sample(row["theorem_statement"]), row["malicious_proof"]) for row in data]
    # `file` attacks are whole submissions: as a proof they leave the proof at once.
    verdicts = verifier.verify(items)
    assert [
        row["name"]
        for row, verdict in zip(data, verdicts, strict=True)
        if verdict.verified
    ] == []


def test_sample_attacks_without_any_scan(backend):
    for row in rows("exploits_sample.jsonl"):
        target, proof = sample(row["theorem_statement"]), row["malicious_proof"]
        try:
            report = backend.check(request(target, proof))
        except WorkerDiedError:
            continue
        verdict = judge(report, splice(target.statement, proof))
        assert not verdict.verified, row["name"]


def request(target, proof):
    return CheckRequest(
        name=target.name,
        header=target.header,
        statement=target.statement,
        proof=proof,
        limits=Limits(wall_s=5.0),
    )
