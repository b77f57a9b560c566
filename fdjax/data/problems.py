"""Problems as JSON lines: fdjax's own rows and those of DeepSeek-Prover's miniF2F."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from fdjax.errors import DataError
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
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"Expected a readable UTF-8 JSONL file at {path}, got "
            f"{type(error).__name__}: {error}; correct the path or the file."
        ) from error
    problems = []
    # Only line feeds end a row: splitlines would also cut at U+2028 inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            problems.append(_Row(path, number, line).problem(format))
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


class _Row:
    """One line of a file, which knows where it stands when something is wrong."""

    def __init__(self, path: Path, number: int, line: str):
        self._place = f"{path}, line {number}"
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise self._error(
                "a JSON object",
                f"{_shorten(line)} ({error})",
                "write one complete object on each line",
            ) from error
        if not isinstance(values, dict):
            raise self._error(
                "a JSON object",
                type(values).__name__,
                "write one object on each line",
            )
        self._values: dict[str, Any] = values

    def problem(self, format: ProblemFormat | None) -> Problem:
        if format is None:
            if ("statement" in self._values) == ("formal_statement" in self._values):
                raise self._error(
                    "either `statement` or `formal_statement`",
                    f"the keys {sorted(self._values)}",
                    "name the format, or use one of these keys",
                )
            format = "fdjax" if "statement" in self._values else "deepseek"
        return self._own() if format == "fdjax" else self._deepseek()

    def _own(self) -> Problem:
        statement = self._text("statement", required=True)
        if _BY.search(statement):
            raise self._error(
                "a `statement` that ends before `:=`",
                _shorten(statement[-40:]),
                "cut it there; the proof is added after `:= by`",
            )
        return Problem(
            name=self._declared(statement),
            statement=statement,
            header=self._text("header"),
            references=self._references(),
            family=self._text("family"),
            difficulty=self._difficulty(),
        )

    def _deepseek(self) -> Problem:
        source = self._text("formal_statement", required=True)
        end = _BY.search(source)
        if end is None:
            raise self._error(
                "a `formal_statement` that ends in `:= by`",
                _shorten(source[-40:]),
                "end it there and leave the proof out",
            )
        header = self._text("header")
        statement = source[: end.start()].strip()
        if header and not header.endswith("\n"):
            header += "\n"
        return Problem(
            name=self._declared(statement),
            statement=statement,
            header=header,
            family=self._text("split"),
        )

    def _declared(self, statement: str) -> str:
        """`name`, provided that the statement declares it."""
        name = self._text("name", required=True)
        match = _NAME.search(statement)
        if match is None or match[1] != name:
            raise self._error(
                f"a statement that declares `theorem {name}`",
                _shorten(statement),
                "make `name` and the statement agree",
            )
        return name

    def _text(self, key: str, *, required: bool = False) -> str:
        value = self._values.get(key)
        if value is None and not required:
            return ""
        if not isinstance(value, str) or (required and not value.strip()):
            got = "nothing" if key not in self._values else _shorten(repr(value))
            raise self._error(
                f"text for `{key}`", got, "add it as a non-empty JSON string"
            )
        return value

    def _references(self) -> tuple[str, ...]:
        value = self._values.get("references") or []
        if not isinstance(value, list) or not all(
            isinstance(item, str) and item.strip() for item in value
        ):
            raise self._error(
                "a list of proofs for `references`",
                _shorten(repr(value)),
                "write each proof as one non-empty string of tactics",
            )
        return tuple(value)

    def _difficulty(self) -> int:
        value = self._values.get("difficulty", 0)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._error(
                "an integer of at least 0 for `difficulty`",
                _shorten(repr(value)),
                "give the tactics of the shortest proof, or leave the key out",
            )
        return value

    def _error(self, expected: str, got: str, remedy: str) -> DataError:
        return DataError(f"{self._place}: expected {expected}, got {got}; {remedy}.")


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}…"
