"""Attempts as rows of samples.jsonl, so that feedback can be written ahead of time."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from fdjax.feedback.writer import Attempt
from fdjax.jsonl import Row, iterate_rows, shorten
from fdjax.judge import Judgement
from fdjax.lean import Diagnostic, Status, Verdict
from fdjax.lean.facts.source import goals_of
from fdjax.records import Problem

__all__ = ["attempt_row", "iterate_groups"]

_GROUP = ("arm", "step", "group", "problem", "header", "statement")
"""What the rows of one group have in common; those that a row lacks count as null."""


def attempt_row(attempt: Attempt) -> dict[str, Any]:
    """An attempt as JSON-ready values; `iterate_groups` reads it back."""
    problem, judgement, verdict = attempt.problem, attempt.judgement, attempt.verdict
    return {
        "problem": problem.name,
        "header": problem.header,
        "statement": problem.statement,
        "informal": problem.informal,
        "references": list(problem.references),
        "text": attempt.text,
        "proof": judgement.answer,
        "start": judgement.start,
        "reward": judgement.reward,
        "passed": judgement.passed,
        "reason": judgement.reason,
        "status": None if verdict is None else verdict.status.value,
        "messages": [_message(each) for each in verdict.diagnostics] if verdict else [],
    }


def iterate_groups(path: Path) -> Iterator[list[Attempt]]:
    """The attempts of a file in groups: rows side by side at one problem and step.

    A row holds `problem` (its name), `statement`, `proof`, `status` and `messages`, and
    perhaps the other keys of `attempt_row`. Attempts that were not judged are left out,
    as they are in a run.

    Raises:
      DataError: the file cannot be read, or a row is not as described.
    """
    for _, rows in groupby(iterate_rows(path), key=_group_of):
        attempts = [_attempt(row) for row in rows]
        judged = [each for each in attempts if not each.judgement.missing]
        if judged:
            yield judged


def _message(diagnostic: Diagnostic) -> dict[str, Any]:
    """A message of Lean; line 0 stands for the statement and what is before it."""
    values = asdict(diagnostic)
    return values | {"line": diagnostic.line if values.pop("in_proof") else 0}


def _group_of(row: Row) -> tuple[Any, ...]:
    return tuple(repr(row.values.get(key)) for key in _GROUP)


def _attempt(row: Row) -> Attempt:
    proof = row.text("proof")
    problem = Problem(
        name=row.text("problem", required=True),
        header=row.text("header"),
        statement=row.text("statement", required=True),
        informal=row.text("informal"),
        references=tuple(_texts(row, "references")),
    )
    verdict = _verdict(row)
    reward = _number(row, "reward")
    if "reward" not in row.values and verdict is not None and not verdict.missing:
        reward = float(verdict.verified)
    passed = row.values.get("passed")
    return Attempt(
        problem=problem,
        text=row.text("text") or proof,
        judgement=Judgement(
            reward=reward,
            passed=bool(verdict and verdict.verified) if passed is None else passed,
            answer=proof,
            start=int(_number(row, "start") or 0),
            reason=row.text("reason"),
            verdict=verdict,
        ),
    )


def _verdict(row: Row) -> Verdict | None:
    """What Lean said; None where another judge decided."""
    if row.values.get("status") is None:
        return None
    try:
        status = Status(row.values["status"])
        diagnostics = tuple(map(_diagnostic, row.values.get("messages") or ()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise row.error(
            "`status` and `messages` of a verdict",
            shorten(f"{type(error).__name__}: {error}"),
            "give the rows of a run's samples.jsonl",
        ) from error
    return Verdict(
        status=status,
        diagnostics=diagnostics,
        goals=goals_of(diagnostics),
        reason=row.text("reason"),
    )


def _diagnostic(message: dict[str, Any]) -> Diagnostic:
    return Diagnostic(**message, in_proof=message["line"] > 0)


def _texts(row: Row, key: str) -> list[str]:
    values = row.values.get(key) or []
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise row.error(
            f"a list of texts for `{key}`", shorten(repr(values)), "correct the row"
        )
    return values


def _number(row: Row, key: str) -> float | None:
    value = row.values.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and math.isfinite(value)):
        raise row.error(
            f"a finite number or null for `{key}`",
            shorten(repr(value)),
            "correct the row",
        )
    return value
