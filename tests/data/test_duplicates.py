import pytest

from fdjax.data.duplicates import Duplicate, deduplicate, statement_key
from fdjax.records import Problem


def problem(statement: str, header: str = "", name: str = "t") -> Problem:
    return Problem(name=name, statement=statement, header=header)


BASE = problem("theorem t (a b : Nat) (h : a < b) : f a 12 ≤ b", "import Mathlib")


@pytest.mark.parametrize(
    "other",
    [
        problem("theorem t\n    (a b : Nat)\n  (h : a<b) :\n  f a 12 ≤ b"),
        problem(
            "/-- A word. -/\ntheorem t (a b /- two -/ : Nat) (h : a < b) : f a 12 ≤ b"
        ),
        problem("theorem t (a b : Nat) (h : a < b) : f a 12 ≤ b -- easy"),
        problem("theorem u.v (a b : Nat) (h : a < b) : f a 12 ≤ b", name="u.v"),
        problem("lemma «t 1» (a b : Nat) (h : a < b) : f a 12 ≤ b", name="«t 1»"),
        problem("theorem t (b a : Nat) (hab : b < a) : f b 12 ≤ a"),
        problem("@[simp] private theorem t (a b : Nat) (h : a < b) : f a 12 ≤ b"),
        problem("open Nat in\ntheorem t (a b : Nat) (h : a < b) : f a 12 ≤ b"),
        problem(
            BASE.statement,
            "import Std\nopen Nat\n  Real\nset_option maxHeartbeats 0\n"
            "namespace X\nnoncomputable section\nuniverse u\n-- end of it",
        ),
    ],
)
def test_one_theorem_in_other_words(other):
    assert statement_key(other) == statement_key(BASE)
    assert deduplicate([BASE, other]).problems == (BASE,)


@pytest.mark.parametrize(
    "other",
    [
        problem("theorem t (a b : Nat) (h : b < a) : f a 12 ≤ b"),
        problem("theorem t (a b : Int) (h : a < b) : f a 12 ≤ b"),
        problem("theorem t (a b : Nat) (h : a < b) : f a 1 2 ≤ b"),
        problem("theorem t (h : a < b) (a b : Nat) : f a 12 ≤ b"),
        problem("theorem t (a : Nat) (b : Nat) (h : a < b) : f a 12 ≤ b"),
        problem(
            "variable (p : Prop) in theorem t (a b : Nat) (h : a < b) : f a 12 ≤ b"
        ),
        problem(BASE.statement, "def f (a n : Nat) := 0"),
        problem(BASE.statement, "open Nat\nvariable (p : Prop)"),
        problem(BASE.statement, "open Nat in def f (a n : Nat) := 0"),
    ],
)
def test_another_theorem(other):
    assert statement_key(other) != statement_key(BASE)
    assert deduplicate([BASE, other]).removed == ()


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        ("{a : Nat} : a = a", "{b : Nat} : b = b", True),
        ("{{a : Nat}} : a = a", "{{b : Nat}} : b = b", True),
        ("⦃a : Nat⦄ : a = a", "⦃b : Nat⦄ : b = b", True),
        ("[i : Group G] : i = i", "[j : Group G] : j = j", True),
        ("(a) {b} : a = b", "(c) {d} : c = d", True),
        ("a b : a = b", "c d : c = d", True),
        ("(h : p ∧ q) : h.1 = h.left", "(k : p ∧ q) : k.1 = k.left", True),
        # an instance without a name binds none: `Fact` is no variable
        ("[Fact (p : q)] : Fact x", "[Goal (p : q)] : Goal x", False),
        ("(a : Nat) : f (a := 1)", "(b : Nat) : f (b := 1)", False),
        ("(a : Nat) : let a := 1; a = 1", "(b : Nat) : let b := 1; b = 1", True),
        ("(a : Nat) : x.a = a", "(b : Nat) : x.b = b", False),
        # the names behind the colon stay as they are
        (": ∀ a, a = 1", ": ∀ b, b = 1", False),
        ("(_ : p) : q _", "(_ : p) : q x", False),
    ],
)
def test_which_names_count(one, other, are_same):
    keys = [statement_key(problem(f"theorem t {rest}")) for rest in (one, other)]
    assert (keys[0] == keys[1]) == are_same


def test_what_was_removed_says_why():
    theorems = {
        name: problem(f"theorem {name} : {type}", name=name)
        for name, type in [("a", "p"), ("b", "q"), ("c", "p"), ("d", "r"), ("e", "q")]
    }
    benchmark = problem("lemma x (n : Nat) :\n  q", name="x")
    other = problem("lemma y : q", name="y")
    found = deduplicate(
        iter(theorems.values()),
        {"none": [], "first": [benchmark, other], "second": [other]},
    )
    assert found.problems == (theorems["a"], theorems["d"])
    assert found.removed == tuple(
        Duplicate(problem=theorems[name], same_as=same, found_in=where)
        for name, same, where in [
            ("b", other, "first"),
            ("c", theorems["a"], ""),
            ("e", other, "first"),
        ]
    )


def test_a_statement_of_another_name_is_compared_as_it_is():
    """A problem made by hand may be wrong; Lean says so, not we."""
    assert statement_key(problem("theorem u : p")) == ("⊢", "theorem", "u", ":", "p")
    assert statement_key(problem("theorem t")) == ("⊢",)
