"""Problems as JSON lines: fdjax's own rows and those of other provers' benchmarks."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from fdjax.encoding import encode
from fdjax.errors import DataError
from fdjax.files import replacing
from fdjax.jsonl import Row, iterate_rows, shorten
from fdjax.lean.facts.lexer import code
from fdjax.lean.facts.statement import Theorem, last_theorem, statement_of
from fdjax.records import Problem, is_unicode

__all__ = ["ProblemFormat", "read_problems", "write_problems"]

ProblemFormat = Literal["fdjax", "deepseek"]


def read_problems(
    path: Path | str, format: ProblemFormat | None = None
) -> list[Problem]:
    """The problems of a JSONL file, in order; blank lines are skipped.

    fdjax rows hold `name` and `statement` (one theorem, ends before `:=`), and may hold
    `header`, `references`, `family` and `difficulty`.

    Rows of other provers (DeepSeek, Goedel, Kimina, NuminaMath and more) hold
    `formal_statement`, and may hold `name` (by default the theorem's own), `header`,
    `split` (kept as the family) and `informal_prefix` (a comment, left out). The last
    theorem of a `formal_statement` is the statement, with the comments, attributes and
    `open … in` that belong to it; what stands before becomes part of the header. It
    ends in `:= by`, `:= by sorry` or the like, which is cut off together with the `end`
    of sections and namespaces behind it; a proof is refused. So is `sorry` before the
    theorem, as in `abbrev solution : ℕ := sorry`: an answer left open would be part of
    the submission, which no problem can express. With the answer in its place the row
    is read.

    `name` is spelled as the theorem's, «» included. Rows may share one: each is a
    problem of its own.

    Args:
      path: the file.
      format: "fdjax" for own rows, "deepseek" for others'; None recognises it from each
        row's keys.

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
    with replacing(Path(path)) as file:
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
            file.write(encode(row))


def _problem(row: Row, format: ProblemFormat | None) -> Problem:
    if format is None:
        if ("statement" in row.values) == ("formal_statement" in row.values):
            raise row.error(
                "either `statement` or `formal_statement`",
                f"the keys {sorted(row.values)}",
                "name the format, or use one of these keys",
            )
        format = "fdjax" if "statement" in row.values else "deepseek"
    problem = _own(row) if format == "fdjax" else _deepseek(row)
    texts = (problem.statement, problem.header, *problem.references)
    damaged = next((text for text in texts if not is_unicode(text)), None)
    if damaged is not None:
        raise row.error(
            "texts in valid Unicode",
            f"a lone surrogate in {shorten(ascii(damaged))}",
            "write the character that is meant",
        )
    return problem


def _own(row: Row) -> Problem:
    statement = statement_of(row)
    return Problem(
        name=_theorem(row, statement, needs_name=True).name,
        statement=statement,
        header=row.text("header"),
        references=_references(row),
        family=row.text("family"),
        difficulty=_difficulty(row),
    )


def _deepseek(row: Row) -> Problem:
    source = row.text("formal_statement", required=True)
    theorem = _theorem(row, source, needs_name=False)
    if not theorem.proof or not theorem.is_open:
        raise row.error(
            "a `formal_statement` that ends in `:= by` or `:= by sorry`",
            shorten(theorem.proof or theorem.statement[-40:]),
            "end it there and leave the proof out",
        )
    return Problem(
        name=theorem.name,
        statement=theorem.statement,
        header=_joined_header(row, theorem.header),
        family=row.text("split"),
    )


def _theorem(row: Row, source: str, *, needs_name: bool) -> Theorem:
    """The last theorem of a source, which has the name that the row gives it."""
    is_named = needs_name or row.values.get("name") is not None
    name = row.text("name", required=is_named)
    theorem = last_theorem(source)
    if theorem is None:
        raise row.error(
            "a statement that declares a theorem",
            shorten(source.strip()),
            "write it as `theorem NAME … : TYPE`",
        )
    if not theorem.name or (is_named and theorem.name != name):
        raise row.error(
            f"a statement that declares `theorem {name or 'NAME'}`",
            shorten(theorem.statement),
            "make `name` and the statement agree, «» included",
        )
    return theorem


def _joined_header(row: Row, inner: str) -> str:
    """The row's header and what stands before the theorem in its source."""
    header = row.text("header")
    if any(token.text == "sorry" for part in (header, inner) for token in code(part)):
        raise row.error(
            "nothing before the theorem that rests on `sorry`",
            shorten((inner or header).strip()),
            "fill it in: a problem is one theorem, and a submission proves that only",
        )
    if not header.strip() or header.strip() == inner.strip():
        return inner
    if any(token.text == "import" for token in code(inner)):
        raise row.error(
            "imports at the beginning of `header`, as there is one",
            f"{shorten(inner.strip())} in `formal_statement`",
            "move them there",
        )
    return "\n".join(part for part in (header, inner) if part)


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
