"""What chat provers hand in by mistake; all of it was made up here."""

import pytest

from fdjax.lean import WholeFile
from fdjax.lean.facts.answers import misfit

FENCED = "```lean4\ntheorem t : True := trivial\n```"


@pytest.mark.parametrize(
    ("submission", "said"),
    [
        ("by\n  simp", "begins with `by`, which is there already: leave it out"),
        ("-- so\nby simp", "begins with `by`"),
        (
            "theorem t : True := by\n  simp",
            "whole theorem is given as `proof`: give it",
        ),
        ("import Std\nopen Nat\nlemma t : p := h", "give it as `source`"),
        ("open Nat\n@[simp] theorem t : p := h", "give it as `source`"),
        ("  simp\n```", "no tactic text: prose or a code fence"),
        ("<think>simp?</think>\n  simp", "no tactic text: prose or a code fence"),
        (WholeFile(FENCED), "no Lean file: prose or a code fence before the first"),
        (WholeFile(f"### Proof\n\n{FENCED}"), "no Lean file: prose or a code fence"),
        (WholeFile("Here is the theorem.\ntheorem t : p := h"), "no Lean file: prose"),
        (WholeFile("  exact h"), "no Lean file"),
        ("  simp", ""),
        ("  open Nat in\n  simp", ""),
        ("  set_option maxRecDepth 4000 in\n  simp", ""),
        ("  -- ``` theorem\n  by_cases h : p", ""),
        ("", ""),
        (WholeFile("-- the theorem\n/-! ```\n``` -/\ntheorem t : p := h"), ""),
        (WholeFile("set_option maxHeartbeats 9 in\n@[simp] theorem t : p := h"), ""),
        (WholeFile("#check 1"), ""),
        (WholeFile("nonrec theorem t : p := h"), ""),
        (WholeFile("\n"), ""),
    ],
)
def test_what_a_submission_is_instead(submission, said):
    assert said in misfit(submission)
    assert bool(said) == bool(misfit(submission))
