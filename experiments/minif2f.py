"""miniF2F statements that a Lean without Mathlib understands."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fdjax.data.problems import read_problems
from fdjax.errors import DataError
from fdjax.lean import Verifier
from fdjax.records import Problem

__all__ = ["core_problems"]

_SPELLINGS = {"ℕ": "Nat", "ℤ": "Int"}


def core_problems(path: Path, verifier: Verifier) -> tuple[list[Problem], int]:
    """The statements of a miniF2F file that elaborate on core Lean, and how many had.

    Mathlib's header is left out and ℕ and ℤ are written as core Lean writes them;
    Lean then decides which statements it understands.

    Raises:
      DataError: the file is missing or malformed, or no statement elaborates.
    """
    problems = [_core(problem) for problem in read_problems(path)]
    reports = verifier.check_statements(problems)
    kept: Sequence[Problem] = [
        problem for problem, report in zip(problems, reports, strict=True) if report.ok
    ]
    if not kept:
        raise DataError(
            f"Expected statements in {path} that elaborate without Mathlib, got none "
            f"of {len(problems)}; check that the file holds miniF2F for Lean 4."
        )
    return list(kept), len(problems)


def _core(problem: Problem) -> Problem:
    statement = problem.statement
    for theirs, ours in _SPELLINGS.items():
        statement = statement.replace(theirs, ours)
    return replace(problem, header="", statement=statement)
