"""Positions: Lean counts from the statement's first line, readers from the proof's."""

import pytest

from fdjax.lean.backend import RawMessage, WholeFile
from fdjax.lean.source import body_of, goals_of, splice


def at(line, column, end_line=None, end_column=None):
    return RawMessage(
        severity="error",
        line=line,
        column=column,
        end_line=end_line,
        end_column=end_column,
        text="unsolved goals\ncase a\n⊢ p\n\ncase b\nh : p\n⊢ q",
    )


# Line 1 is `theorem t`, line 2 `  : p := by` (the statement ends in column 5), line 3
# the proof's first line.
SPLICE = splice("theorem t\n  : p  \n", "  simp\n  rfl")


def position(message):
    found = SPLICE.diagnostic(message)
    return found.in_proof, found.line, found.column, found.end_line, found.end_column


def test_text():
    assert SPLICE.text == "theorem t\n  : p := by\n  simp\n  rfl"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_copy_of_the_header_is_blanked(end):
    header = "import Init\nopen Nat\n"
    text = "\n".join(["", "import Init", "open Nat", "theorem t : p := h", ""])
    file = WholeFile(text.replace("\n", end))
    assert body_of(file, header) == f"\n{' ' * 11}\n{' ' * 8}\ntheorem t : p := h\n"
    assert body_of(file, "import Std") == text
    assert body_of(file, "import Init\nopen N") == text


def test_inside_the_proof():
    assert position(at(3, 2, 4, 5)) == (True, 1, 2, 2, 5)


def test_at_our_own_by_means_the_whole_proof():
    assert position(at(2, 9, 4, 5)) == (True, 1, 0, 2, 5)


def test_inside_the_statement():
    assert position(at(2, 4, 2, 5)) == (False, 2, 4, None, None)
    assert position(at(1, 8, 1, 9)) == (False, 1, 8, 1, 9)


def test_without_an_end():
    assert position(at(4, 0)) == (True, 2, 0, None, None)


def test_goals_are_the_blocks_with_a_turnstile():
    goals = goals_of((SPLICE.diagnostic(at(3, 2)),))
    assert [goal.text for goal in goals] == ["case a\n⊢ p", "case b\nh : p\n⊢ q"]
    assert (goals[0].line, goals[0].column) == (1, 2)
