"""Where a theorem begins and ends in its text."""

import json
import re

import pytest

from fdjax.errors import DataError
from fdjax.jsonl import iterate_rows
from fdjax.lean.facts.statement import last_theorem, statement_of

PLACEHOLDERS = [
    ":=",
    ":= by",
    ":=by\n",
    ":=\n  by",
    ":= sorry",
    ":= by sorry",
    ":= by\n  sorry\n",
    ":= by admit",
    ":= by sorry -- TODO",
    ":= by\n  /- to /- do -/ -/\n  sorry",
    ":= -- by definition",
    ":= (by exact sorry)",
    ":= by {\n  sorry; }",
    ":= by\n  sorry\nend\n\nend A.«b c» -- of it",
]
PROOFS = [
    ":= rfl",
    ":= by rfl",
    ":= by\n  sorry\n  rfl",
    ":= by decide -- sorry",
    ":= rfl -- by definition",
    ":= rfl := by",
    ":= by sorry /- open",
    ":= by sorry\n#print axioms t",
    ":= by sorry\nend A\nopen B",
    ":= by simp; sorry",
    "where\n  mp h := h",
    "| 0 => rfl\n  | n + 1 => rfl",
]


@pytest.mark.parametrize(
    "statement",
    [
        "theorem t : 1 = 1",
        "theorem t (h : a := by simp) [i : I := x] {n : Nat := 1} ⦃m : M := y⦄ : a",
        "theorem t : let x := 1; have h : p := trivial; x = 1",
        "theorem t : let f : Nat → Nat | 0 => 1 | _ => 2; f 0 = 1",
        "theorem t : (do let x ← m; pure x) = do let x ← m; pure x",
        "theorem t : { x := 1, y := by simp : P }.x = f (n := 1)",
        "theorem t : (match n with | 0 => p | _ => q) ∧ match n with | 0 => p | _ => q",
        "theorem t : |x - y| ≤ |x| + |y| ∧ f = fun | 0 => 1 | _ => 2",
        'theorem t : s!"{f ":=" {x := 1}}" = ":=" ∧ c = \':\' ∧ r#"""# = s',
        "theorem t : a = a -- := by\n",
        "theorem t : a = a /- := by -/",
        "/-- theorem u := by -/\n@[simp, foo (x := [1])]\nprivate nonrec theorem t : a",
        "set_option autoImplicit true in\nopen Nat in\nlemma t : a",
        "variable (p : P := q) in omit h in\n-- then\n/-- d -/ theorem t : a",
        "theorem t (lemma : Prop) : lemma ∨ ¬lemma",
    ],
)
def test_a_statement_ends_before_its_own_proof(statement):
    for end in ["", *PLACEHOLDERS, *PROOFS]:
        if end.startswith("|") and "=>" in statement:
            continue  # alternatives of the type or of the proof: Lean will say
        theorem = last_theorem(f"{statement}\n{end}" if end else statement)
        assert theorem is not None
        assert (theorem.name, theorem.header) == ("t", "")
        assert (theorem.statement, theorem.proof) == (statement.strip(), end)
        assert theorem.is_open == (end not in PROOFS)


@pytest.mark.parametrize(
    ("declaration", "name"),
    [
        ("theorem «a b» : p", "«a b»"),
        ("theorem Foo.«a.b».c' : p", "Foo.«a.b».c'"),
        ("theorem foo.{u} : p", "foo"),
        ("theorem foo.{u,v}(h : p) : p", "foo"),
        ("theorem foo: p", "foo"),
        ("theorem αβ₁'{n : N} : p", "αβ₁'"),
        ("theorem _root_.foo!? : p", "_root_.foo!?"),
        ("theorem/- the theorem x -/foo : p", "foo"),
        ("lemma\n  foo : p", "foo"),
        ("theorem : p", ""),
        ("theorem (h : p) : p", ""),
    ],
)
def test_the_name_is_spelled_as_the_text_spells_it(declaration, name):
    theorem = last_theorem(f"-- lemma a\n/- theorem b -/\n{declaration} := by")
    assert theorem is not None
    assert theorem.name == name


@pytest.mark.parametrize(
    "header",
    [
        "import Mathlib\nopen Nat",
        "-- theorem x\ntheorem helper : p := by simp",
        "def f (n : Nat) : Nat := n + 1",
        'macro "m" : command => `(theorem y : True := trivial)',
        "/-! Notes on theorem t -/",
        "variable (n : Nat)",
        "namespace A\nlemma b : p := h.theorem",
    ],
)
def test_the_header_is_what_does_not_belong_to_the_last_theorem(header):
    # Comments go with the theorem: many problems then have the same header.
    own = "-- now\n/- it is -/\n/-- so -/\n@[simp] theorem t : p"
    theorem = last_theorem(f"{header} {own} := by sorry\n")
    assert theorem is not None
    assert (theorem.header, theorem.statement) == (header, own)


@pytest.mark.parametrize(
    "text", ["", "-- theorem t : p", "def f := 1", "example : p := by", '"theorem t"']
)
def test_no_theorem(text):
    assert last_theorem(text) is None


def statement(tmp_path, text):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"statement": text}))
    [row] = iterate_rows(path)
    return statement_of(row)


@pytest.mark.parametrize(
    "text", [" theorem t : p -- := by\n", "/-- theorem u -/ theorem t : p", "def f : p"]
)
def test_a_sound_statement_stays_as_it_is(tmp_path, text):
    assert statement(tmp_path, text) == text


def test_a_statement_that_carries_a_proof_is_refused(tmp_path):
    refused = re.compile(r"line 1: .*ends before `:=`.*; cut it there", re.DOTALL)
    for end in [*PLACEHOLDERS, *PROOFS]:
        with pytest.raises(DataError, match=refused):
            statement(tmp_path, f"theorem t : ∀ n, n = n\n  {end}")


@pytest.mark.parametrize("first", ["import Std", "open Nat", "def f := 1", "/-! n -/"])
def test_a_statement_is_one_command(tmp_path, first):
    with pytest.raises(DataError, match=r"of one theorem, got .* before it; move that"):
        statement(tmp_path, f"{first}\ntheorem t : p")
