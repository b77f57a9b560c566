"""Answers as chat provers write them; all of these were made up here."""

import pytest

from fdjax.lean import WholeFile
from fdjax.lean.facts.answers import misfit, submission_in

FILE = "theorem t : True := by\n  trivial\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", None),
        ("The theorem is true.", None),
        ("Use `simp` or ```simp```.", None),
        ("```lean4\n```", None),
        ("```python\nprint()\n```", None),
        ("<think>\n```lean4\nsimp\n```\n</think>\nI do not know.", None),
        ("Well.\n<think>\n```lean4\nsimp\n```", None),
        (f"```lean4\n{FILE}```", WholeFile(FILE)),
        (f"A.\n```Lean title\n{FILE}```\nB.", WholeFile(FILE)),
        (f"~~~ lean\n{FILE}~~~", WholeFile(FILE)),
        (f"<think>\n```lean\nsimp\n```\n</think>\n```lean\n{FILE}```", WholeFile(FILE)),
        (f"```lean\nsorry\n```\nBetter:\n```lean\n{FILE}```\n", WholeFile(FILE)),
        (f"```lean\nsorry\n\n```lean4\n{FILE}```\n", WholeFile(FILE)),
        (f"```lean\n{FILE}", WholeFile(FILE + "\n")),
        (f"```lean\n{FILE}```\n```text\nDone.\n```\n```\n1\n```", WholeFile(FILE)),
        (f"```\n{FILE}```", WholeFile(FILE)),
        (f"```lean\n{FILE}```".replace("\n", "\r\n"), WholeFile(FILE)),
        (
            f"````lean\n/-- As in\n```lean\nx\n``` -/\n{FILE}````",
            WholeFile(f"/-- As in\n```lean\nx\n``` -/\n{FILE}"),
        ),
        ("  ```lean\n  simp\n    [h]\n  ```", "simp\n  [h]\n"),
        ("```tactics\n  simp\n  omega\n```", "  simp\n  omega\n"),
        ("```lean\nopen Nat in\nsimp\n```", "open Nat in\nsimp\n"),
        (
            "```lean\nopen Nat\nlemma t : p := h\n```",
            WholeFile("open Nat\nlemma t : p := h\n"),
        ),
        ("```lean\nby\n  simp\n```", "  simp\n"),
        ("```lean\n:= by\n  simp\n```", "  simp\n"),
        ("```lean\nby simp\n   omega\n```", "   simp\n   omega\n"),
        ("```lean\nby_cases h\n```", "by_cases h\n"),
    ],
)
def test_the_last_block_of_lean(answer, expected):
    assert submission_in(answer) == expected


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
