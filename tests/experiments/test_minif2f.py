import json

import pytest

from experiments.miniature.minif2f import core_problems
from fdjax.errors import DataError
from fdjax.lean import FakeBackend, Verifier
from fdjax.lean.facts.backend import RawReport
from fdjax.records import Problem


def lean(request):
    """A core Lean: no ℝ, no names of Mathlib's."""
    text = request.header + request.statement
    unknown = ("ℝ", ": ℕ", ": ℤ", "lemma", "Mathlib")
    is_core = not any(word in text for word in unknown)
    return RawReport(statement_error="" if is_core else "unknown ℝ\nand more")


@pytest.fixture
def verifier():
    with Verifier(lambda: FakeBackend(lean), workers=1) as verifier:
        yield verifier


def write(path, *sources):
    rows = [json.dumps({"formal_statement": source}) for source in sources]
    path.write_text("\n".join(rows))
    return path


def test_core_lean_reads_what_needs_no_mathlib(tmp_path, verifier):
    header = "import Mathlib\n\nopen Nat\n  Real\nset_option maxHeartbeats 9\n"
    path = write(
        tmp_path / "rows.jsonl",
        f"{header}\ntheorem a (n : ℕ) : n = n := by sorry",
        f"{header}/-- ℕ -/ def f (n : ℕ) := n\nopen Real in\nlemma b : f 1 = 1 := by",
        "theorem real (x : ℝ) : x = x := by",
        "theorem c (ℕ' : ℤ) : 1 = ℕ' := sorry",
    )
    problems, others = core_problems(path, verifier)
    assert problems == [
        Problem(name="a", statement="theorem a (n : Nat) : n = n"),
        Problem(
            name="b",
            header="/-- ℕ -/ def f (n : Nat) := n",
            statement="open Real in\ntheorem b : f 1 = 1",
        ),
        Problem(name="c", statement="theorem c (ℕ' : Int) : 1 = ℕ'"),
    ]
    assert others == ["real: unknown ℝ\nand more"]


def test_a_row_of_the_wrong_form_is_no_row_that_needs_mathlib(tmp_path, verifier):
    path = write(tmp_path / "rows.jsonl", "theorem a : 1 = 1 := by rfl")
    with pytest.raises(DataError, match=r"line 1: .* got := by rfl"):
        core_problems(path, verifier)


def test_a_file_without_such_statements_says_why(tmp_path, verifier):
    path = write(tmp_path / "rows.jsonl", "theorem real (x : ℝ) : x = x := by")
    with pytest.raises(DataError, match=r"got none of 1 \(real: unknown ℝ"):
        core_problems(path, verifier)
