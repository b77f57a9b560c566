"""Order and equality over Nat or Int, by named lemmas one step at a time."""

import itertools
import random

from fdjax.data.theorems.arithmetic_steps import (
    OBTAINED,
    VARIABLES,
    ArithmeticTactics,
)
from fdjax.data.theorems.expression import Expression, Language
from fdjax.data.theorems.logic import trivial
from fdjax.data.theorems.search import Candidate, Sequent, needs_hypotheses

__all__ = ["ArithmeticFamily"]


class ArithmeticFamily:
    """Facts about a few numbers, and a goal that follows from some of them."""

    def __init__(self) -> None:
        self._carriers = [
            _Carrier("Nat", range(5)),
            # Int differs from Nat in nothing that these lemmas can show.
            _Carrier("Int", range(-2, 3)),
        ]

    def draw(self, rng: random.Random) -> Candidate | None:
        """A sequent that no small valuation refutes and that needs its hypotheses."""
        carrier = rng.choice(self._carriers)
        names = [carrier.language(v) for v in VARIABLES[: rng.choice((3, 3, 4))]]
        count = rng.choice((2, 2, 3, 3, 4))
        if rng.random() < 0.5:
            hypotheses = carrier.chain(rng, names)
            count = len(hypotheses)
        else:
            hypotheses = [carrier.hypothesis(rng, names) for _ in range(count)]
        if len(set(hypotheses)) < count or sum(h.head == "∃" for h in hypotheses) > 1:
            return None
        for _ in range(6):
            goal = carrier.goal(rng, names)
            if goal in hypotheses or trivial(goal, hypotheses):
                continue
            if needs_hypotheses(
                carrier.language, hypotheses, goal, least=max(1, count - 2)
            ):
                break
        else:
            return None
        used = {part.head for item in (goal, *hypotheses) for part in item.subterms()}
        variables = " ".join(v for v in VARIABLES if v in used)
        named = tuple((f"h{i + 1}", item) for i, item in enumerate(hypotheses))
        return Candidate(
            f"({variables} : {carrier.name})",
            Sequent(named, goal, count + 1),
            carrier.language,
            carrier.tactics.steps,
        )


class _Carrier:
    """Nat or Int: its language, its formulas, its tactics."""

    def __init__(self, name: str, values: range):
        self.name = name
        variables = VARIABLES + OBTAINED
        rows = itertools.product(values, repeat=len(variables))
        self.language = Language(
            dict(zip(variables, zip(*rows, strict=True), strict=True)),
            {
                "≤": int.__le__,
                "<": int.__lt__,
                "=": int.__eq__,
                "+": int.__add__,
            },
            domain=range(values.start - 1, values.stop + 1),
        )
        self._bound = self.language("x")
        self.tactics = ArithmeticTactics(self.language, name)

    def chain(self, rng: random.Random, names: list[Expression]) -> list[Expression]:
        """Facts that link all the numbers in some order, themselves in any order."""
        order = rng.sample(names, len(names))
        links = [
            self.language(rng.choice("≤<="), *rng.sample(pair, 2))
            if rng.random() < 0.2
            else self.language(rng.choice("≤≤<<="), *pair)
            for pair in itertools.pairwise(order)
        ]
        if rng.random() < 0.5:
            links.append(self.hypothesis(rng, names))
        rng.shuffle(links)
        if rng.random() < 0.5:
            links[:2] = [self.language("∧", *links[:2])]
        return links

    def hypothesis(self, rng: random.Random, names: list[Expression]) -> Expression:
        """A fact; sometimes two, a choice, a rule or a witness."""
        kind = rng.random()
        if kind < 0.72:
            return self._relation(rng, names)
        if kind < 0.82:
            return self._join(rng, "∧", names)
        if kind < 0.87:
            return self._join(rng, "∨", names)
        if kind < 0.94:
            return self._join(rng, "→", names)
        return self._witness(rng, names)

    def goal(self, rng: random.Random, names: list[Expression]) -> Expression:
        """What is to be shown."""
        kind = rng.random()
        if kind < 0.2:
            return self._relation(rng, names)
        if kind < 0.5:
            return self._join(rng, "∧", names)
        if kind < 0.57:
            return self._join(rng, "∨", names)
        if kind < 0.67:
            return self._join(rng, "→", names)
        if kind < 0.8:
            both = self._join(rng, "∧", names)
            return self.language("→", self._relation(rng, names), both)
        if kind < 0.88:
            return self.language("¬", self._relation(rng, names))
        return self._witness(rng, names)

    def _join(
        self, rng: random.Random, head: str, names: list[Expression]
    ) -> Expression:
        while True:
            left, right = self._relation(rng, names), self._relation(rng, names)
            if left is not right:
                return self.language(head, left, right)

    def _relation(self, rng: random.Random, names: list[Expression]) -> Expression:
        head = rng.choices("≤<=", (4, 3, 3))[0]
        if rng.random() < 0.2:
            left, right = (self.language("+", *rng.sample(names, 2)) for _ in "lr")
            if left is not right:
                return self.language(head, left, right)
        return self.language(head, *rng.sample(names, 2))

    def _witness(self, rng: random.Random, names: list[Expression]) -> Expression:
        low, high = rng.sample(names, 2)
        first, second = rng.choice("≤<"), rng.choice("≤<")
        body = self.language(
            "∧",
            self.language(first, low, self._bound),
            self.language(second, self._bound, high),
        )
        return self.language("∃", self._bound, body)
