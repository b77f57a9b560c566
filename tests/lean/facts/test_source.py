"""Positions: Lean counts from the statement's first line, readers from the proof's."""

import pytest

from fdjax.lean.facts.backend import RawMessage, WholeFile
from fdjax.lean.facts.source import (
    Trusted,
    alone,
    body_of,
    goals_of,
    opening_of,
    splice,
)


def at(line, column, end_line=None, end_column=None):
    return RawMessage(
        severity="error",
        line=line,
        column=column,
        end_line=end_line,
        end_column=end_column,
        text="unsolved goals\ncase a\n⊢ p\n\ncase b\nh : p\n⊢ q",
    )


# Line 1 is `theorem t`, line 2 `  : p`, line 3 our own `:= by`; the proof follows.
SPLICE = splice("theorem t\n  : p  \n", "  simp\n  rfl")


def position(message):
    found = SPLICE.diagnostic(message)
    return found.in_proof, found.line, found.column, found.end_line, found.end_column


def test_text():
    assert SPLICE.text == "theorem t\n  : p\n:= by\n  simp\n  rfl"


@pytest.mark.parametrize(
    "statement",
    ["theorem t : p -- é", "theorem t : p\r\n  -- remark \r\n", "theorem t : p /- -/"],
)
def test_our_own_text_has_a_line_of_its_own(statement):
    """A comment up to the end of the line would swallow it."""
    opening = opening_of(statement)
    for text in (alone(statement), splice(statement, "  rfl").text):
        # As Lean reads it: lines end in "\n".
        read = text.replace("\r\n", "\n").encode()
        assert read[opening - 1 : opening + 3] == b"\n:= "
        assert read[:opening].decode().split() == statement.split()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_copy_of_the_header_is_blanked(end):
    header = "import Init\nopen Nat\n"
    text = "\n".join(["", "import Init", "open Nat", "theorem t : p := h", ""])
    file = WholeFile(text.replace("\n", end))
    assert body_of(file, header) == f"\n{' ' * 11}\n{' ' * 8}\ntheorem t : p := h\n"
    assert body_of(file, "import Std") == text
    assert body_of(file, "import Init\nopen N") == text


def test_inside_the_proof():
    assert position(at(4, 2, 5, 5)) == (True, 1, 2, 2, 5)


def test_at_our_own_by_means_the_whole_proof():
    assert position(at(3, 3, 5, 5)) == (True, 1, 0, 2, 5)


def test_inside_the_statement():
    assert position(at(2, 4, 3, 2)) == (False, 2, 4, None, None)
    assert position(at(1, 8, 1, 9)) == (False, 1, 8, 1, 9)


def test_without_an_end():
    assert position(at(5, 0)) == (True, 2, 0, None, None)


def test_goals_are_the_blocks_with_a_turnstile():
    goals = goals_of((SPLICE.diagnostic(at(4, 2)),))
    assert [goal.text for goal in goals] == ["case a\n⊢ p", "case b\nh : p\n⊢ q"]
    assert (goals[0].line, goals[0].column) == (1, 2)


# Two lines; the second ends in column 5.
STATEMENT = Trusted(text="theorem t\n  : p")
HEADER = Trusted(text="open Nat\n@[simp]\n", is_header=True)


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (at(2, 4, 2, 5), (2, 4, 2, 5)),
        (at(2, 5, 3, 2), (2, 5, 2, 5)),  # up to our own `:=`
        (at(3, 3), (2, 5, None, None)),
    ],
)
def test_what_is_wrong_with_a_statement_points_into_it(message, place):
    found = STATEMENT.diagnostic(message)
    assert not found.in_proof
    assert (found.line, found.column, found.end_line, found.end_column) == place


def test_what_is_wrong_with_a_header_points_into_it():
    found = HEADER.diagnostic(at(2, 2, 2, 6))
    assert (found.in_proof, found.line, found.column) == (False, 2, 2)


@pytest.mark.parametrize(
    ("source", "message", "remedy"),
    [
        (STATEMENT, at(2, 5, 3, 2), "the statement must end where"),
        (STATEMENT, at(3, 8), "the statement must end where"),
        (STATEMENT, at(1, 8, 2, 5), ""),
        (HEADER, at(3, 0), "belong to the statement"),
        (HEADER, at(2, 2, 2, 6), ""),
    ],
)
def test_a_text_that_ends_too_early_is_named(source, message, remedy):
    found = source.remedy((message,))
    assert remedy in found
    assert bool(found) == bool(remedy)
