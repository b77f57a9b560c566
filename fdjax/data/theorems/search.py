"""Randomised iterative-deepening search for proofs with few tactics."""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from fdjax.data.theorems.expression import Expression, Language

__all__ = [
    "Candidate",
    "ProofSearch",
    "Sequent",
    "Step",
    "needs_hypotheses",
    "tactic_count",
]


class Sequent(NamedTuple):
    """A goal and what may be used for it."""

    context: tuple[tuple[str, Expression], ...]
    """Hypothesis names and propositions, in order."""
    goal: Expression
    fresh: int
    """Number of the next hypothesis: `h{fresh}`."""

    def add(self, *propositions: Expression, drop: str = "") -> "Sequent":
        """With propositions as new hypotheses, and without the one named `drop`."""
        kept = tuple([item for item in self.context if item[0] != drop])
        new = tuple(
            [(f"h{self.fresh + i}", item) for i, item in enumerate(propositions)]
        )
        return Sequent(kept + new, self.goal, self.fresh + len(new))

    def aim(self, goal: Expression) -> "Sequent":
        """With another goal."""
        return Sequent(self.context, goal, self.fresh)

    def change(self, index: int, proposition: Expression) -> "Sequent":
        """With another proposition as the hypothesis at `index`."""
        changed = (self.context[index][0], proposition)
        context = (*self.context[:index], changed, *self.context[index + 1 :])
        return Sequent(context, self.goal, self.fresh)


class Step(NamedTuple):
    """A tactic and the goals that it leaves, in Lean's order."""

    line: str
    subgoals: tuple[Sequent, ...] = ()
    labels: tuple[str, ...] = ()
    """Lines before each subgoal's tactics; empty where there are none."""
    reversible: bool = False
    """Whether the subgoals hold where the goal does, so that none can be refuted."""


class Candidate(NamedTuple):
    """A theorem that may have a proof."""

    binders: str
    """Variables with their types, as in the statement."""
    sequent: Sequent
    language: Language
    steps: Callable[[Sequent, bool], Iterable[Step]]
    """Every tactic the family allows in a state; where the second argument is True,
    those that leave goals may be missing."""

    @property
    def statement(self) -> str:
        """Lean source up to, not including, `:=`."""
        hypotheses = "".join(
            f" ({name} : {item.text})" for name, item in self.sequent.context
        )
        return f"theorem t {self.binders}{hypotheses} : {self.sequent.goal.text}"


def needs_hypotheses(
    language: Language, hypotheses: Sequence[Expression], goal: Expression, least: int
) -> bool:
    """Whether no valuation refutes the theorem, but some do without a hypothesis.

    At least `least` hypotheses must be such that dropping it alone refutes the goal.
    Hypotheses that always hold, or never all together, are refused.
    """
    masks = [language.mask(item) for item in hypotheses]
    outside = language.full & ~language.mask(goal)
    if _meet(outside, masks) or language.full in masks:
        return False
    if masks and not (outside and _meet(language.full, masks)):
        return False
    needed = sum(
        _meet(outside, masks[:index] + masks[index + 1 :]) != 0
        for index in range(len(masks))
    )
    return needed >= least


def _meet(mask: int, masks: Sequence[int]) -> int:
    for other in masks:
        mask &= other
    return mask


class _BudgetSpentError(Exception):
    """More states were visited than allowed."""


class ProofSearch:
    """Finds proofs of one candidate; what was refuted once is remembered.

    Args:
      candidate: the theorem.
      rng: decides the order in which tactics are tried.
      budget: states that may be visited altogether.
    """

    def __init__(self, candidate: Candidate, rng: random.Random, budget: int):
        self._candidate = candidate
        self._rng = rng
        self._budget = budget
        self._unprovable: dict[tuple[frozenset[Expression], Expression], int] = {}
        self._proved: dict[tuple[frozenset[Expression], Expression], int] = {}
        self._closing: dict[Sequent, list[Step]] = {}
        self._opening: dict[Sequent, list[Step]] = {}

    def shortest(self, longest: int) -> int | None:
        """The least number of tactics, None where more than `longest` or too costly."""
        for size in range(1, longest + 1):
            if self.proof(size) is not None:
                return size
            if self._budget <= 0:
                return None
        return None

    def extend(self, budget: int) -> None:
        """Allows that many more states."""
        self._budget = budget

    def proof(self, size: int) -> tuple[str, ...] | None:
        """Lines of a random proof with at most `size` tactics; None where not found."""
        try:
            return self._prove(self._candidate.sequent, size)
        except _BudgetSpentError:
            return None

    def _prove(self, sequent: Sequent, size: int) -> tuple[str, ...] | None:
        key = _key(sequent)
        if size <= self._unprovable.get(key, 0):
            return None
        options = self._options(sequent, last=size == 1)
        if size == 1 and options:
            return (self._rng.choice(options).line,)
        for step in options:
            lines = self._finish(step, size)
            if lines is not None:
                return lines
        self._unprovable[key] = size
        return None

    def _finish(self, step: Step, size: int) -> tuple[str, ...] | None:
        """The step and proofs of what it leaves, `size` tactics at most."""
        spare = size - 1 - len(step.subgoals)
        if spare < 0:
            return None
        needed = [1] * len(step.subgoals)
        if len(step.subgoals) > 1:
            # A subgoal must not take, by chance, what another cannot do without.
            for index, subgoal in enumerate(step.subgoals):
                least = self._least(subgoal, 1 + spare)
                if least is None:
                    return None
                needed[index] = least
                spare -= least - 1
        lines = (step.line,)
        for index, subgoal in enumerate(step.subgoals):
            rest = self._prove(subgoal, needed[index] + spare)
            if rest is None:
                return None
            if step.labels:
                lines += (step.labels[index],)
            lines += rest
            spare -= tactic_count(rest) - needed[index]
        return lines

    def _least(self, sequent: Sequent, limit: int) -> int | None:
        """The least size of a proof, None where it is above `limit`."""
        key = _key(sequent)
        for size in range(self._unprovable.get(key, 0) + 1, limit + 1):
            if size >= self._proved.get(key, size + 1):
                return size
            if self._prove(sequent, size) is not None:
                self._proved[key] = size
                return size
        return None

    def _options(self, sequent: Sequent, *, last: bool) -> list[Step]:
        """Steps that may succeed, in random order; with `last`, those that finish."""
        if last and sequent in self._closing:
            return self._closing[sequent]
        found = self._opening.get(sequent)
        if found is None:
            self._budget -= 1
            if self._budget <= 0:
                raise _BudgetSpentError
            steps = list(self._candidate.steps(sequent, last))
            closing = [step for step in steps if not step.subgoals]
            self._closing[sequent] = closing
            if last:
                return closing
            found = self._opening[sequent] = closing + [
                step
                for step in steps
                if step.subgoals
                and (step.reversible or not any(map(self._refuted, step.subgoals)))
            ]
        return self._rng.sample(found, len(found))

    def _refuted(self, sequent: Sequent) -> bool:
        language = self._candidate.language
        mask = language.full & ~language.mask(sequent.goal)
        for _, item in sequent.context:
            mask &= language.mask(item)
        return mask != 0


def _key(sequent: Sequent) -> tuple[frozenset[Expression], Expression]:
    """What decides whether a proof of some size exists; names do not."""
    return frozenset([item for _, item in sequent.context]), sequent.goal


def tactic_count(lines: Iterable[str]) -> int:
    """Lines that are tactics, not the labels of cases."""
    return sum(not line.startswith("|") for line in lines)
