"""Intuitionistic propositional theorems over p, q, r, s."""

import itertools
import random

from fdjax.data.theorems.expression import Expression, Language
from fdjax.data.theorems.logic import logical_steps, trivial
from fdjax.data.theorems.search import Candidate, Sequent, needs_hypotheses

__all__ = ["PropositionalFamily"]

_ATOMS = "pqrs"
_CONNECTIVES = ("∧", "∨", "→", "¬", "↔")
_WEIGHTS = (3.0, 3.0, 3.5, 1.2, 0.5)


class PropositionalFamily:
    """Draws sequents of random formulas; most have no proof and are filtered here."""

    def __init__(self) -> None:
        rows = list(itertools.product((False, True), repeat=len(_ATOMS)))
        self._language = Language(
            dict(zip(_ATOMS, zip(*rows, strict=True), strict=True)), {}
        )
        self._atoms = [self._language(atom) for atom in _ATOMS]

    def draw(self, rng: random.Random) -> Candidate | None:
        """A sequent that no valuation refutes and that needs its hypotheses."""
        language = self._language
        count = rng.choice((0, 1, 2, 2, 3, 3))
        hypotheses = [self._formula(rng, 2) for _ in range(count)]
        goal = self._formula(rng, 2 if count else 3)
        if len(set(hypotheses)) < count or trivial(goal, hypotheses):
            return None
        # Half of the hypotheses, rounded up, must be needed: the others distract.
        if not needs_hypotheses(language, hypotheses, goal, least=(count + 1) // 2):
            return None
        named = tuple((f"h{i + 1}", item) for i, item in enumerate(hypotheses))
        return Candidate(
            f"({' '.join(_ATOMS)} : Prop)",
            Sequent(named, goal, count + 1),
            language,
            lambda sequent, last: logical_steps(language, sequent, last),
        )

    def _formula(self, rng: random.Random, depth: int) -> Expression:
        if depth == 0 or rng.random() < 0.18:
            return rng.choice(self._atoms)
        head = rng.choices(_CONNECTIVES, _WEIGHTS)[0]
        if head == "¬":
            return self._language("¬", rng.choice(self._atoms))
        while True:
            left, right = (
                self._formula(rng, depth - 1 if rng.random() < 0.5 else 0) for _ in "lr"
            )
            if left is not right:
                return self._language(head, left, right)
