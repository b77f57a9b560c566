"""Lean, not our own search, says that the references are proofs."""

from collections import defaultdict

import pytest

from fdjax.data.theorems import generate_problems
from fdjax.lean import Status


@pytest.fixture(scope="module")
def problems():
    """Up to 9 problems of each family and difficulty, about 150."""
    strata = defaultdict(list)
    for problem in generate_problems(500, seed=77):
        strata[problem.family, problem.difficulty].append(problem)
    sample = [problem for members in strata.values() for problem in members[:9]]
    assert len(sample) >= 120
    return sample


def test_every_statement_elaborates(verifier, problems):
    reports = verifier.check_statements(problems)
    assert [r.reason for r in reports if not r.ok] == []


def test_every_reference_is_verified(verifier, problems):
    items = [(p, reference) for p in problems for reference in p.references]
    refused = [
        (problem.statement, proof, verdict.reason)
        for (problem, proof), verdict in zip(items, verifier.verify(items), strict=True)
        if verdict.status is not Status.VERIFIED
    ]
    assert refused == []


@pytest.mark.parametrize("tactic", ["assumption", "rfl", "trivial", "decide"])
def test_no_statement_falls_to_one_blind_tactic(verifier, problems, tactic):
    verdicts = verifier.verify([(problem, f"  {tactic}") for problem in problems])
    # Every verdict is Lean's refusal, not a failure to check.
    closed = [
        problem.statement
        for problem, verdict in zip(problems, verdicts, strict=True)
        if verdict.status is not Status.REJECTED
    ]
    assert closed == []


def test_every_line_of_a_reference_matters(verifier, problems):
    """Without its last tactic no reference is a proof, so the check can fail."""
    cut = [
        (p, p.references[0].rpartition("\n")[0]) for p in problems if p.difficulty > 1
    ]
    assert not any(verdict.verified for verdict in verifier.verify(cut))
