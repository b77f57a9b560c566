"""Equations and membership of lists: rewriting, case distinction, induction."""

import random

from fdjax.data.theorems.expression import Expression
from fdjax.data.theorems.list_language import (
    ELEMENTS,
    FUNCTIONS,
    LISTS,
    list_language,
)
from fdjax.data.theorems.list_steps import ListTactics
from fdjax.data.theorems.logic import trivial
from fdjax.data.theorems.search import Candidate, Sequent, needs_hypotheses

__all__ = ["ListFamily"]


class ListFamily:
    """Lists over an arbitrary type, with equations and memberships as hypotheses."""

    def __init__(self) -> None:
        self.language = list_language()
        make = self.language
        self._lists = [make(name) for name in LISTS]
        self._elements = [make(name) for name in ELEMENTS]
        self._functions = [make(name) for name in FUNCTIONS]
        self._bound = make("x")
        self._tactics = ListTactics(make)

    def draw(self, rng: random.Random) -> Candidate | None:
        """A sequent that no sample valuation refutes."""
        kind = rng.random()
        if kind < 0.45:
            hypotheses, goal = self._equation(rng)
        elif kind < 0.85:
            hypotheses, goal = self._membership(rng)
        else:
            hypotheses, goal = self._pointwise(rng)
        if len(set(hypotheses)) < len(hypotheses) or trivial(
            goal, hypotheses, self._tactics.computes
        ):
            return None
        least = len(hypotheses) - 1 if len(hypotheses) > 1 else len(hypotheses)
        if not needs_hypotheses(self.language, hypotheses, goal, least=least):
            return None
        named = tuple((f"h{i + 1}", item) for i, item in enumerate(hypotheses))
        return Candidate(
            _binders([goal, *hypotheses]),
            Sequent(named, goal, len(named) + 1),
            self.language,
            self._tactics.steps,
        )

    def _equation(self, rng: random.Random) -> tuple[list[Expression], Expression]:
        """A term and what a random walk of rewriting turns it into."""
        make = self.language
        hypotheses = [
            self._list_equation(rng) if rng.random() < 0.7 else self._length(rng)
            for _ in range(rng.choice((0, 1, 1, 2, 2)))
        ]
        start = self._term(rng, 3)
        if rng.random() < 0.5:
            start = make("length", start)
        end = start
        for _ in range(rng.choice((2, 3, 4, 5, 6))):
            rules = [
                (old, new)
                for _, old, new in self._tactics.instances(end)
                if rng.random() < 0.9 or old.head == "+"
            ]
            for item in hypotheses:
                pair = rng.sample(item.parts, 2)
                if make.replace(end, *pair) is not end:
                    rules.append((pair[0], pair[1]))
            if rules:
                end = make.replace(end, *rng.choice(rules))
        sides = [start, end]
        rng.shuffle(sides)
        goal = make("=", *sides)
        if rng.random() < 0.15:
            premise = self._list_equation(rng)
            goal = make(rng.choice("→∧"), premise, goal)
        return hypotheses, goal

    def _membership(self, rng: random.Random) -> tuple[list[Expression], Expression]:
        hypotheses = []
        for _ in range(rng.choice((1, 2, 2, 3))):
            kind = rng.random()
            if kind < 0.55:
                hypotheses.append(self._member(rng))
            elif kind < 0.8:
                hypotheses.append(self._list_equation(rng))
            else:
                head = rng.choice("→→∨∧")
                hypotheses.append(
                    self.language(head, self._member(rng), self._member(rng))
                )
        goal = self._member(rng)
        if rng.random() < 0.35:
            goal = self.language(rng.choice("→∨∧"), self._member(rng), goal)
        return hypotheses, goal

    def _pointwise(self, rng: random.Random) -> tuple[list[Expression], Expression]:
        """Functions that agree everywhere; the goal needs induction."""
        make, (f, g), x = self.language, self._functions, self._bound
        apply_f, apply_g = make("call", f, x), make("call", g, x)
        # Equal sides, and the functions to map on each side of the goal in turn.
        left, right, before, after = rng.choice(
            (
                (apply_f, x, (f,), ()),
                (apply_f, apply_g, (f,), (g,)),
                (make("call", f, apply_g), x, (g, f), ()),
                (make("call", f, apply_g), apply_g, (g, f), (g,)),
            )
        )
        rule = make("∀", x, make("=", left, right))
        base = self._term(rng, 1, mapped=False)
        sides = []
        for functions in (before, after):
            side = base
            for function in functions:
                side = make("map", side, function)
            sides.append(side)
        if rng.random() < 0.3:
            other = rng.choice(self._lists)
            sides = [make("++", side, other) for side in sides]
        if rng.random() < 0.3:
            sides = [make("length", side) for side in sides]
        rng.shuffle(sides)
        hypotheses = [rule]
        if rng.random() < 0.5:
            hypotheses.append(self._list_equation(rng))
        return hypotheses, make("=", *sides)

    def _term(
        self, rng: random.Random, depth: int, *, mapped: bool = True
    ) -> Expression:
        make = self.language
        if depth == 0:
            return rng.choice(self._lists)
        kind = rng.random()
        if kind < 0.5:
            left = self._term(
                rng, depth - 1 if rng.random() < 0.6 else 0, mapped=mapped
            )
            right = self._term(
                rng, depth - 1 if rng.random() < 0.4 else 0, mapped=mapped
            )
            return make("++", left, right)
        inner = self._term(rng, depth - 1, mapped=mapped)
        if kind < 0.75 and mapped:
            return make("map", inner, self._functions[0])
        return make("reverse", inner) if kind < 0.95 else rng.choice(self._lists)

    def _list_equation(self, rng: random.Random) -> Expression:
        one, two, three = rng.sample(self._lists, 3)
        other = rng.choice(
            (
                two,
                self.language("++", two, three),
                self.language("reverse", two),
            )
        )
        sides = [one, other]
        rng.shuffle(sides)
        return self.language("=", *sides)

    def _length(self, rng: random.Random) -> Expression:
        one, two = rng.sample(self._lists, 2)
        return self.language(
            "=", self.language("length", one), self.language("length", two)
        )

    def _member(self, rng: random.Random) -> Expression:
        element = self._elements[rng.random() < 0.25]
        return self.language(
            "∈", element, self._term(rng, rng.choice((0, 1, 1, 2)), mapped=False)
        )


def _binders(items: list[Expression]) -> str:
    """The variables that occur, with their types."""
    used = {part.head for item in items for part in item.subterms()}
    groups = (
        (FUNCTIONS, "α → α"),
        (ELEMENTS, "α"),
        (LISTS, "List α"),
    )
    binders = ["(α : Type)"]
    for names, kind in groups:
        present = [name for name in names if name in used]
        if present:
            binders.append(f"({' '.join(present)} : {kind})")
    return " ".join(binders)
