"""Problems from the files people have: fdjax's own rows and those of other provers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from fdjax.data.rows.files import RawRow, json_rows, lean_rows
from fdjax.data.rows.hub import dataset_rows, is_table
from fdjax.data.rows.own import OWN_KEYS, own_problem, own_values
from fdjax.data.rows.shapes import (
    LEAN_3,
    LEAN_FILE,
    SHAPES,
    ProblemFormat,
    Shape,
    format_of,
)
from fdjax.data.rows.source import problem_of
from fdjax.encoding import encode
from fdjax.errors import ConfigError, DataError
from fdjax.files import replacing
from fdjax.jsonl import Row, shorten
from fdjax.lean.facts.lexer import code
from fdjax.ranges import Among, require
from fdjax.records import Problem, is_unicode

__all__ = [
    "LeftOut",
    "ProblemFormat",
    "ProblemSet",
    "load_problems",
    "read_problems",
    "write_problems",
]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A row that holds no problem that can be used."""

    number: int
    """From 1: its line, item of an array, row of a dataset or file of a folder."""
    reason: str
    """Where it is, what was expected, what it holds, and what to do."""


@dataclass(frozen=True, kw_only=True)
class ProblemSet:
    """What was read."""

    problems: tuple[Problem, ...]
    """In the order of the rows; never empty."""
    left_out: tuple[LeftOut, ...] = ()
    """In the order of the rows; empty unless they were to be skipped."""


def load_problems(
    source: Path | str,
    format: ProblemFormat | None = None,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    header: str = "",
    with_answers: bool = False,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
) -> ProblemSet:
    """The problems of a file, a folder or a Hugging Face dataset.

    docs/data.md lists the formats and their keys. Rows of others hold Lean source; its
    last theorem is the statement, with the comments, attributes and `open … in` that
    belong to it, and what stands before becomes part of the header. The source ends in
    `:= by`, `:= by sorry` or the like, which is cut off together with the `end` of
    sections and namespaces behind it; a proof is refused. So is `sorry` before the
    theorem: an answer left open would be part of the submission, which no problem can
    express.

    Rows may share a name: each is a problem of its own.

    Args:
      source: JSON lines, a JSON array, a `.lean` file with one problem, a folder of
        such, a Parquet or Arrow file, or a folder that `datasets` saved. With a
        `split`, whatever `datasets.load_dataset` takes, such as a name on the Hub.
      format: of the rows; None: each row's keys tell.
      on_error: what to do about a row that is not as described: "raise", or "skip" it
        and say so in the result. A file that cannot be read is always an error.
      header: Lean source put before the header of problems that import nothing, such as
        "import Mathlib".
      with_answers: whether to fill in answers left open before the theorem from the
        comments behind them, as PutnamBench has them.
      split: of a dataset.
      config: of a dataset on the Hub with several.
      revision: of a dataset on the Hub.

    Raises:
      ConfigError: `format` or `on_error` is none of those listed, or a setting does not
        go with the source.
      DataError: the source cannot be read, holds no problem, or a row is not as
        described.
      InstallError: the package `datasets` is needed and missing.
    """
    require("format", format, Among(None, *get_args(ProblemFormat)))
    require("on_error", on_error, Among("raise", "skip"))
    problems: list[Problem] = []
    left_out: list[LeftOut] = []
    is_lean = split is None and _is_lean(Path(source))
    if (config or revision) and (split is None or is_table(Path(source))):
        raise ConfigError(
            "expected a configuration or a revision only with the split of a dataset "
            f"that is loaded by its name, got one for {source}: leave it out"
        )
    if is_lean and format is not None:
        raise ConfigError(
            f"expected no format for the Lean files at {source}, got {format}: leave "
            "it out"
        )
    shape = LEAN_FILE if is_lean else None
    for number, place, text in _raw_rows(source, shape, split, config, revision):
        try:
            problem = _problem(Row(place, text), shape, format, with_answers)
        except DataError as error:
            if on_error == "raise":
                raise
            left_out.append(LeftOut(number=number, reason=str(error)))
        else:
            problems.append(_with_imports(problem, header))
    if left_out and not problems:
        raise DataError(
            f"Expected a problem in {source}, got {len(left_out)} rows that hold none; "
            f"the first of them is {left_out[0].reason}"
        )
    if not problems:
        raise DataError(
            f"Expected at least one JSON row in {source}, got an empty file; write the "
            "problems again or name another file."
        )
    return ProblemSet(problems=tuple(problems), left_out=tuple(left_out))


def read_problems(
    path: Path | str, format: ProblemFormat | None = None
) -> list[Problem]:
    """The problems of `load_problems`, where every row must hold one.

    Raises:
      DataError: the file is missing or empty, or a row is not as described there.
    """
    return list(load_problems(path, format).problems)


def write_problems(problems: Iterable[Problem], path: Path | str) -> None:
    """Writes fdjax rows that `read_problems` reads back as equal problems."""
    with replacing(Path(path)) as file:
        for problem in problems:
            file.write(encode(own_values(problem)))


def _is_lean(path: Path) -> bool:
    return path.suffix == ".lean" or (path.is_dir() and not is_table(path))


def _raw_rows(
    source: Path | str,
    shape: Shape | None,
    split: str | None,
    config: str | None,
    revision: str | None,
) -> Iterator[RawRow]:
    path = Path(source)
    if shape is LEAN_FILE:
        return lean_rows(path)
    if split is None and not is_table(path):
        return json_rows(path)
    keys = {LEAN_3, *OWN_KEYS, *(key for one in SHAPES.values() for key in one.keys)}
    return dataset_rows(source, keys, split=split, config=config, revision=revision)


def _problem(
    row: Row, shape: Shape | None, format: ProblemFormat | None, with_answers: bool
) -> Problem:
    """The problem of a row of a known shape, or of the format that it is in."""
    if shape is None:
        format = format or format_of(row)
        shape = None if format == "fdjax" else SHAPES[format]
    if shape is None:
        problem = own_problem(row)
    else:
        problem = problem_of(row, shape, with_answers=with_answers)
    texts = (problem.statement, problem.header, problem.informal, *problem.references)
    damaged = next((text for text in texts if not is_unicode(text)), None)
    if damaged is not None:
        raise row.error(
            "texts in valid Unicode",
            f"a lone surrogate in {shorten(ascii(damaged))}",
            "write the character that is meant",
        )
    return problem


def _with_imports(problem: Problem, header: str) -> Problem:
    """The problem with a header of imports, unless it has imports of its own."""
    if not header or any(token.text == "import" for token in code(problem.header)):
        return problem
    own = problem.header
    return replace(problem, header=f"{header}\n{own}" if own.strip() else header)
