"""Where rows keep what a problem is made of: one entry for each public format."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from fdjax.jsonl import Row

__all__ = ["LEAN_3", "LEAN_FILE", "SHAPES", "ProblemFormat", "Shape", "format_of"]

ProblemFormat = Literal[
    "fdjax",
    "deepseek",
    "goedel",
    "numina",
    "lean-workbook",
    "proofnet",
    "putnam",
    "combibench",
]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The keys of rows that hold Lean source with a theorem at its end."""

    marks: tuple[str, ...] = ()
    """Any of these tells the format from the others."""
    sources: tuple[str, ...]
    """Lean source up to the theorem; where a row gives several, they must agree."""
    name: str = ""
    """Name of the theorem, which must be the source's; empty: the rows have none."""
    header: str = ""
    """Lean source before that of `sources`; empty: the rows have none."""
    informal: tuple[str, ...] = ()
    """The problem in words; where a row gives several, they must agree."""
    family: str = ""
    """Where the problem comes from; empty: the rows do not say."""

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys that are looked at."""
        single = filter(None, (self.name, self.header, self.family))
        return (*self.marks, *self.sources, *self.informal, *single)


SHAPES: Mapping[ProblemFormat, Shape] = MappingProxyType(
    {
        "deepseek": Shape(
            sources=("formal_statement",),
            name="name",
            header="header",
            informal=(
                "informal_prefix",
                "informal_stmt",
                "informal_statement",
                "nl_statement",
            ),
            family="split",
        ),
        # Their `name` is that of the problem: "Imo2006P3" of the theorem imo2006_p3.
        "goedel": Shape(
            marks=("problem_id", "lean4_code"),
            sources=("formal_statement", "lean4_code"),
            header="header",
            informal=("informal_prefix", "informal_statement"),
            family="split",
        ),
        "numina": Shape(
            marks=("problem",),
            sources=("formal_statement",),
            name="name",
            informal=("problem",),
            family="source",
        ),
        "lean-workbook": Shape(
            marks=("natural_language_statement",),
            sources=("formal_statement",),
            name="name",
            informal=("natural_language_statement",),
            family="split",
        ),
        "proofnet": Shape(
            marks=("lean4_formalization",),
            sources=("lean4_formalization",),
            header="lean4_src_header",
            informal=("nl_statement",),
            family="split",
        ),
        "putnam": Shape(
            marks=("lean4_statement",),
            sources=("lean4_statement",),
            name="name",
            informal=("informal_statement",),
            family="split",
        ),
        "combibench": Shape(
            marks=("theorem_name", "natural_language"),
            sources=("formal_statement",),
            name="theorem_name",
            informal=("natural_language",),
        ),
    }
)
"""The formats of others; "deepseek" is that of a `formal_statement` without marks."""

LEAN_3 = "src_header"
"""A key of ProofNet's first edition, which no format can read."""

LEAN_FILE = Shape(sources=("source",))
"""What a whole Lean file is read as."""


def format_of(row: Row) -> ProblemFormat:
    """The format that a row's keys tell; keys that hold null count as absent.

    Raises:
      DataError: they tell none, or more than one.
    """
    keys = {key for key, value in row.values.items() if value is not None}
    found: list[ProblemFormat] = [
        format for format, shape in SHAPES.items() if keys.intersection(shape.marks)
    ]
    if not found and "formal_statement" in keys:
        found.append("deepseek")
    if "statement" in keys:
        found.append("fdjax")
    if not found:
        raise row.error(
            "`statement` or `formal_statement`, or another format's keys",
            f"the keys {sorted(keys)}",
            "rename the keys as docs/data.md lists them",
        )
    if len(found) > 1:
        told = [f"{format} ({_told(format, keys)})" for format in found]
        raise row.error(
            "the keys of one format",
            f"those of {' and '.join(told)}",
            "name the format",
        )
    return found[0]


def _told(format: ProblemFormat, keys: set[str]) -> str:
    """The keys by which a format was recognised."""
    if format == "fdjax":
        return "`statement`"
    shape = SHAPES[format]
    marks: tuple[Any, ...] = shape.marks or shape.sources
    return ", ".join(f"`{mark}`" for mark in marks if mark in keys)
