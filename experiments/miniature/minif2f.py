"""miniF2F statements that a Lean without Mathlib understands."""

from dataclasses import replace
from pathlib import Path

from fdjax.data.problems import read_problems
from fdjax.errors import DataError
from fdjax.lean import Verifier
from fdjax.lean.facts.lexer import code
from fdjax.records import Problem

__all__ = ["core_problems"]

_SPELLINGS = {"ℕ": "Nat", "ℤ": "Int", "lemma": "theorem"}
_MATHLIBS = frozenset(("import", "open", "set_option"))


def core_problems(path: Path, verifier: Verifier) -> tuple[list[Problem], list[str]]:
    """The statements of a miniF2F file that elaborate on core Lean.

    Imports, opened namespaces and options are left out, and ℕ, ℤ and `lemma` are
    written as core Lean writes them; Lean then decides what it understands.

    Returns:
      The problems, and for each of the others `name: what Lean says`.

    Raises:
      DataError: the file is missing, a row is not as `read_problems` wants it, or no
        statement elaborates.
    """
    problems = [_core(problem) for problem in read_problems(path)]
    kept: list[Problem] = []
    others: list[str] = []
    reports = verifier.check_statements(problems)
    for problem, report in zip(problems, reports, strict=True):
        if report.ok:
            kept.append(problem)
        else:
            others.append(f"{problem.name}: {report.reason}")
    if not kept:
        raise DataError(
            f"Expected statements in {path} that elaborate without Mathlib, got none "
            f"of {len(problems)} ({others[0]}); check that the file holds miniF2F for "
            "Lean 4."
        )
    return kept, others


def _core(problem: Problem) -> Problem:
    return replace(
        problem,
        header=_respell(_definitions(problem.header)),
        statement=_respell(problem.statement),
    )


def _definitions(header: str) -> str:
    """What a header declares: all but commands that only Mathlib can follow."""
    kept: list[str] = []
    end, drops = 0, False
    for token in code(header):
        if header[token.start - 1 : token.start] in ("", "\n"):
            drops = token.text in _MATHLIBS
        if not drops:
            kept.append(header[end : token.end])
        elif token.text == "in":
            drops = False
        end = token.end
    return "".join(kept).strip()


def _respell(text: str) -> str:
    """The text in core Lean's spelling."""
    kept: list[str] = []
    end = 0
    for token in code(text):
        kept.append(text[end : token.start] + _SPELLINGS.get(token.text, token.text))
        end = token.end
    return "".join(kept) + text[end:]
