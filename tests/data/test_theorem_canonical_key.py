import functools
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fdjax.data.theorems import canonical_key, generate_problems
from fdjax.errors import DataError
from fdjax.records import Problem

COUNT = 90


@functools.cache
def problems():
    return generate_problems(COUNT, seed=23)


@functools.cache
def keys():
    return {canonical_key(problem): problem for problem in problems()}


def key(statement):
    return canonical_key(Problem(name="t", statement=statement))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (  # variables renamed
            "theorem t (p q : Prop) (h1 : p → q) : q",
            "theorem t (p q : Prop) (h1 : q → p) : p",
        ),
        (  # hypotheses exchanged and renamed, theorem renamed
            "theorem t (p q : Prop) (h1 : p) (h2 : ¬q) : p ∧ ¬q",
            "theorem u (r s : Prop) (a : ¬s) (b : r) : r ∧ ¬s",
        ),
        (  # variables that do not occur
            "theorem t (p q r s : Prop) (h1 : p) : p ∨ q",
            "theorem t (r s : Prop) (h1 : s) : s ∨ r",
        ),
        (  # binders together or apart, in any order
            "theorem t (a b c : Nat) (h1 : a ≤ b) (h2 : b < c) : a < c",
            "theorem t (c : Nat) (a b : Nat) (h1 : b < c) (h2 : a ≤ b) : a < c",
        ),
        (  # bound variable renamed
            "theorem t (a b : Nat) (h1 : a < b) : ∃ x, a ≤ x ∧ x < b",
            "theorem t (a b : Nat) (h1 : b < a) : ∃ y, b ≤ y ∧ y < a",
        ),
        (  # type and functions renamed, dots after variables
            "theorem t (α : Type) (f : α → α) (l m : List α) : l.map f = m",
            "theorem t (β : Type) (k n : List β) (g : β → β) : n.map g = k",
        ),
    ],
)
def test_equal_up_to_names_and_order(one, other):
    assert key(one) == key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "theorem t (p q : Prop) (h1 : p → q) : q",
            "theorem t (p q : Prop) (h1 : p → q) : p",
        ),
        (  # a hypothesis is not the goal
            "theorem t (p q : Prop) (h1 : p) : q",
            "theorem t (p q : Prop) (h1 : q ∧ q) : p",
        ),
        (  # sides of a connective are not exchanged
            "theorem t (p q : Prop) (h1 : p) : p ∧ q",
            "theorem t (p q : Prop) (h1 : p) : q ∧ p",
        ),
        (  # identified variables
            "theorem t (p q r : Prop) (h1 : p → q) (h2 : q → r) : p → r",
            "theorem t (p q r : Prop) (h1 : p → q) (h2 : r → q) : p → r",
        ),
        (
            "theorem t (a b : Nat) (h1 : a < b) : a ≤ b",
            "theorem t (a b : Int) (h1 : a < b) : a ≤ b",
        ),
        (
            "theorem t (a b : Nat) (h1 : a < b) : a ≤ b",
            "theorem t (a b : Nat) (h1 : a < b) (h2 : a < b) : a ≤ b",
        ),
    ],
)
def test_different_theorems_have_different_keys(one, other):
    assert key(one) != key(other)


def disguise(statement, rng):
    """Renames variables within their binder and hypotheses, permutes hypotheses."""
    binders = re.findall(
        r"\(([^():]+) : ((?:[^()]|\([^()]*(?:\([^()]*\)[^()]*)*\))+)\)", statement
    )
    goal = statement.rpartition(") : ")[2] if not binders else None
    hypotheses = [(n, body) for n, body in binders if re.fullmatch(r"h\d+", n)]
    variables = [(n, body) for n, body in binders if not re.fullmatch(r"h\d+", n)]
    prefix = "theorem t" + "".join(f" ({n} : {b})" for n, b in binders) + " : "
    assert statement.startswith(prefix), "the test understands every binder"
    goal = statement.removeprefix(prefix)
    renaming = {}
    for names, _ in variables:
        old = names.split()
        renaming |= dict(zip(old, rng.sample(old, len(old)), strict=True))
    rng.shuffle(hypotheses)

    def rename(text):
        return re.sub(
            r"(?<![\w.])[^\W\d_](?![\w'])", lambda m: renaming.get(m[0], m[0]), text
        )

    parts = [f"({names} : {body})" for names, body in variables]
    parts += [f"(e{i} : {rename(body)})" for i, (_, body) in enumerate(hypotheses)]
    return f"theorem other {' '.join(parts)} : {rename(goal)}"


@settings(deadline=None)
@given(index=st.integers(0, COUNT - 1), seed=st.integers(0, 2**32))
def test_generated_statements_keep_their_key_in_disguise(index, seed):
    problem = problems()[index]
    other = disguise(problem.statement, random.Random(seed))
    assert key(other) == canonical_key(problem)
    assert keys()[key(other)] is problem


def test_disguise_changes_the_text():
    changed = [disguise(p.statement, random.Random(0)) for p in problems()]
    same_body = sum(
        c.partition(" (")[2] == p.statement.partition(" (")[2]
        for c, p in zip(changed, problems(), strict=True)
    )
    assert same_body < COUNT / 4


@pytest.mark.parametrize(
    "statement", ["", "example : True", "theorem t (p : Prop)", "theorem t (p q) : p"]
)
def test_other_text_is_refused(statement):
    with pytest.raises(DataError, match="Expected a statement"):
        key(statement)
