"""What a prompt's template may name: a problem's texts, each ready to stand in Lean."""

import re

from fdjax.lean.facts.commands import first_word
from fdjax.records import Problem

__all__ = ["PLACES", "comment", "fenced", "places"]

PLACES = (
    "name",
    "header",
    "statement",
    "informal",
    "theorem",
    "opened",
    "file",
)
"""Names of a problem's texts in every template; `places` says what they are."""

_DECLARES = frozenset(
    ("theorem", "lemma", "@", "private", "protected", "nonrec", "noncomputable")
)
"""What a statement begins with where documentation may stand before it."""


def places(problem: Problem) -> dict[str, str]:
    r"""The texts of a problem by the names of their places.

    - name, statement, informal: the problem's own.
    - header: the problem's own, which ends with its line.
    - theorem: statement and `:= by`, on a line of its own behind a line comment.
    - opened: the file up to `:= by`: header, blank line, the informal statement as
      documentation (if the statement has none), theorem.
    - file: the whole file, with `sorry` for a proof.

    >>> problem = Problem(name="t", header="open Nat", statement="theorem t : True")
    >>> places(problem)["file"]
    'open Nat\n\ntheorem t : True := by\n  sorry'
    """
    header = problem.header
    line = header if not header or header.endswith("\n") else f"{header}\n"
    gap = "\n" if line != header else ""
    last_line = problem.statement.rpartition("\n")[2]
    opening = "\n  := by" if "--" in last_line else " := by"
    theorem = f"{problem.statement}{opening}"
    opened = f"{line}{gap}{_documentation(problem)}{theorem}"
    return {
        "name": problem.name,
        "header": line,
        "statement": problem.statement,
        "informal": problem.informal,
        "theorem": theorem,
        "opened": opened,
        "file": f"{opened}\n  sorry",
    }


def fenced(text: str, mark: str = "lean4", end: str = "\n") -> str:
    r"""A text between fences that are longer than any fence in it.

    Args:
      text: what is fenced.
      mark: what stands behind the opening fence.
      end: what stands between the text and the closing fence.

    >>> fenced("simp")
    '```lean4\nsimp\n```'
    """
    longest = max(map(len, re.findall(r"`{3,}", text)), default=2)
    ticks = "`" * (longest + 1)
    if end == "\n" and text.endswith("\n"):
        end = ""
    return f"{ticks}{mark}\n{text}{end}{ticks}"


def comment(text: str, mark: str = "/-") -> str:
    r"""A text as a comment in Lean, on lines of its own; nothing for a blank one.

    Edges of comments in the text get a blank, so that it neither ends nor nests one.

    >>> comment("see f -/ below")
    '/- see f - / below -/\n'
    """
    text = text.strip()
    if not text:
        return ""
    return f"{mark} {_no_edges(text)} -/\n"


def _documentation(problem: Problem) -> str:
    """The informal statement as published data has it before the theorem."""
    text = problem.informal.strip()
    word = first_word(problem.statement)
    if not text or word == "/--":
        return ""
    if word not in _DECLARES:
        return comment(text)
    text = _no_edges(text)
    gap = " " if text.endswith("/") else ""
    return f"/-- {text}{gap}-/\n"


def _no_edges(text: str) -> str:
    return re.sub(r"/(?=-)|-(?=/)", r"\g<0> ", text)
