"""Problems as JSON lines: fdjax's own rows and those of DeepSeek-Prover's miniF2F."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from fdjax.errors import DataError
from fdjax.jsonl import Row, iterate_rows, shorten
from fdjax.records import Problem

__all__ = ["ProblemFormat", "read_problems", "write_problems"]

ProblemFormat = Literal["fdjax", "deepseek"]

_NAME = re.compile(r"\b(?:theorem|lemma)\s+([^\s({\[:]+)")
_BY = re.compile(r":=(?:\s*by)?\s*$")


def read_problems(
    path: Path | str, format: ProblemFormat | None = None
) -> list[Problem]:
    """The problems of a JSONL file, in order; blank lines are skipped.

    fdjax rows hold `name` and `statement`, and may hold `header`, `references`,
    `family` and `difficulty`. DeepSeek-Prover rows hold `name` and `formal_statement`
    ending in `:= by`, and may hold `header`, `split` (kept as the family) and
    `informal_prefix` (a comment, left out).

    Args:
      path: the file.
      format: how to read the rows; None recognises it from each row's keys.

    Raises:
      DataError: the file is missing or empty, or a row is not as described.
    """
    path = Path(path)
    problems = [_problem(row, format) for row in iterate_rows(path)]
    if not problems:
        raise DataError(
            f"Expected at least one JSON row in {path}, got an empty file; write the "
            "problems again or name another file."
        )
    return problems


def write_problems(problems: Iterable[Problem], path: Path | str) -> None:
    """Writes fdjax rows that `read_problems` reads back as equal problems."""
    rows = []
    for problem in problems:
        row: dict[str, Any] = {"name": problem.name, "statement": problem.statement}
        if problem.header:
            row["header"] = problem.header
        if problem.references:
            row["references"] = list(problem.references)
        if problem.family:
            row["family"] = problem.family
        if problem.difficulty:
            row["difficulty"] = problem.difficulty
        rows.append(json.dumps(row, ensure_ascii=False))
    Path(path).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def _problem(row: Row, format: ProblemFormat | None) -> Problem:
    if format is None:
        if ("statement" in row.values) == ("formal_statement" in row.values):
            raise row.error(
                "either `statement` or `formal_statement`",
                f"the keys {sorted(row.values)}",
                "name the format, or use one of these keys",
            )
        format = "fdjax" if "statement" in row.values else "deepseek"
    return _own(row) if format == "fdjax" else _deepseek(row)


def _own(row: Row) -> Problem:
    statement = row.statement()
    return Problem(
        name=_declared(row, statement),
        statement=statement,
        header=row.text("header"),
        references=_references(row),
        family=row.text("family"),
        difficulty=_difficulty(row),
    )


def _deepseek(row: Row) -> Problem:
    source = row.text("formal_statement", required=True)
    end = _BY.search(source)
    if end is None:
        raise row.error(
            "a `formal_statement` that ends in `:= by`",
            shorten(source[-40:]),
            "end it there and leave the proof out",
        )
    header = row.text("header")
    statement = source[: end.start()].strip()
    if header and not header.endswith("\n"):
        header += "\n"
    return Problem(
        name=_declared(row, statement),
        statement=statement,
        header=header,
        family=row.text("split"),
    )


def _declared(row: Row, statement: str) -> str:
    """`name`, provided that the statement declares it."""
    name = row.text("name", required=True)
    match = _NAME.search(statement)
    if match is None or match[1] != name:
        raise row.error(
            f"a statement that declares `theorem {name}`",
            shorten(statement),
            "make `name` and the statement agree",
        )
    return name


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
    value = row.values.get("difficulty", 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise row.error(
            "an integer of at least 0 for `difficulty`",
            shorten(repr(value)),
            "give the tactics of the shortest proof, or leave the key out",
        )
    return value
