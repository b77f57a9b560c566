"""fdjax's own rows: problems as they are written and read back."""

from typing import Any

from fdjax.data.rows.source import named_theorem
from fdjax.jsonl import Row, shorten
from fdjax.lean.facts.statement import statement_of
from fdjax.records import Problem

__all__ = ["OWN_KEYS", "own_problem", "own_values"]

OWN_KEYS = (
    *("name", "statement", "header", "informal", "references", "family", "difficulty"),
)
"""All keys that are looked at."""


def own_problem(row: Row) -> Problem:
    """The problem of a row that `own_values` may have written.

    Raises:
      DataError: a value is missing, or not what it should be.
    """
    statement = statement_of(row)
    theorem = named_theorem(row, statement, "name", needs_name=True)
    return Problem(
        name=theorem.name,
        statement=statement,
        header=row.text("header"),
        informal=row.text("informal"),
        references=_references(row),
        family=row.text("family"),
        difficulty=_difficulty(row),
    )


def own_values(problem: Problem) -> dict[str, Any]:
    """The row of a problem; what it lacks is left out."""
    values: dict[str, Any] = {
        "name": problem.name,
        "statement": problem.statement,
        "header": problem.header,
        "informal": problem.informal,
        "references": list(problem.references),
        "family": problem.family,
        "difficulty": problem.difficulty,
    }
    return {key: value for key, value in values.items() if value}


def _references(row: Row) -> tuple[str, ...]:
    value = row.values.get("references") or []
    if not isinstance(value, list) or not all(
        isinstance(item, str) and item.strip() for item in value
    ):
        raise row.error(
            "a list of proofs for `references`",
            shorten(repr(value)),
            "write each proof as one non-empty string of tactics",
        )
    return tuple(value)


def _difficulty(row: Row) -> int:
    value = row.values.get("difficulty")
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise row.error(
            "an integer of at least 0 for `difficulty`",
            shorten(repr(value)),
            "give the tactics of the shortest proof, or leave the key out",
        )
    return value
