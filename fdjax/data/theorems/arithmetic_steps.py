"""Tactics for order and equality: named lemmas, rewriting, witnesses."""

import itertools
from collections.abc import Iterator

from fdjax.data.theorems.expression import Expression, Language
from fdjax.data.theorems.logic import (
    logical_steps,
    reflexive,
    rewritten_fact,
    rewritten_goal,
    trivial,
)
from fdjax.data.theorems.search import Sequent, Step

__all__ = ["OBTAINED", "VARIABLES", "ArithmeticTactics"]

VARIABLES = "abcd"
OBTAINED = "y"
"""What `obtain` calls a witness; the bound variable is always x."""

_TRANSITIVITY = {
    ("≤", "≤"): ("≤", "le_trans"),
    ("≤", "<"): ("<", "lt_of_le_of_lt"),
    ("<", "≤"): ("<", "lt_of_lt_of_le"),
    ("<", "<"): ("<", "lt_trans"),
}


class ArithmeticTactics:
    """What may be done in a state of a theorem over Nat or Int.

    Args:
      language: expressions over the numbers.
      name: `Nat` or `Int`, the namespace of the lemmas.
    """

    def __init__(self, language: Language, name: str):
        self.language = language
        self.name = name
        self._bound, self._obtained = language("x"), language(OBTAINED)
        self._sums_of: dict[Expression, list[Expression]] = {}

    def steps(self, sequent: Sequent, last: bool) -> Iterator[Step]:
        """Logic, lemmas on one or two facts, rewriting, witnesses."""
        if reflexive(sequent.goal):
            # Nothing else: every `rw`, even one `at` a hypothesis, would end this goal.
            yield Step("rfl")
            return
        yield from logical_steps(self.language, sequent, last)
        known = {item for _, item in sequent.context}
        for term, result in self._conclusions(sequent):
            if result is sequent.goal:
                yield Step(f"exact {term}")
            elif not (last or result in known or _pointless(result)):
                yield Step(f"have h{sequent.fresh} := {term}", (sequent.add(result),))
        yield from self._backward(sequent)
        yield from self._rewrites(sequent, last)
        yield from self._witnesses(sequent)

    def _conclusions(self, sequent: Sequent) -> Iterator[tuple[str, Expression]]:
        """Lemmas applied to facts of the context, and what each shows."""
        language, name = self.language, self.name
        facts = [
            (label, item)
            for label, item in sequent.context
            if item.head in ("≤", "<", "=")
        ]
        for label, item in facts:
            left, right = item.parts
            if item.head == "<":
                yield f"{name}.le_of_lt {label}", language("≤", left, right)
                if left is right and sequent.goal is language.false:
                    yield f"{name}.lt_irrefl {left.inside(4)} {label}", language.false
            elif item.head == "=":
                flipped = language("=", right, left)
                if flipped is sequent.goal:
                    yield f"Eq.symm {label}", flipped
                yield f"{name}.le_of_eq {label}", language("≤", left, right)
        for (one, first), (two, second) in itertools.permutations(facts, 2):
            left, middle = first.parts
            if middle is second.parts[0]:
                right = second.parts[1]
                rule = _TRANSITIVITY.get((first.head, second.head))
                if rule:
                    yield (
                        f"{name}.{rule[1]} {one} {two}",
                        language(rule[0], left, right),
                    )
                elif first.head == second.head:
                    yield f"Eq.trans {one} {two}", language("=", left, right)
                if left is right and first.head == second.head == "≤":
                    shown = language("=", left, middle)
                    yield f"{name}.le_antisymm {one} {two}", shown
            lemma = {"≤≤": "add_le_add", "<<": "add_lt_add"}.get(
                first.head + second.head
            )
            if lemma:
                # Sums are only useful where the goal is about that sum.
                lower = language("+", left, second.parts[0])
                upper = language("+", middle, second.parts[1])
                shown = language(first.head, lower, upper)
                if shown is sequent.goal:
                    yield f"{name}.{lemma} {one} {two}", shown

    def _backward(self, sequent: Sequent) -> Iterator[Step]:
        """`apply` of a lemma to the goal, with or without its first fact."""
        language, name, goal = self.language, self.name, sequent.goal
        if goal.head not in ("≤", "<", "="):
            return
        left, right = goal.parts
        if goal.head == "=":
            flipped = sequent.aim(language("=", right, left))
            yield Step("apply Eq.symm", (flipped,))
            halves = language("≤", left, right), language("≤", right, left)
            yield Step(
                f"apply {name}.le_antisymm", tuple(sequent.aim(h) for h in halves)
            )
        if goal.head == "≤":
            strict = sequent.aim(language("<", left, right))
            yield Step(f"apply {name}.le_of_lt", (strict,))
            if left is right:
                yield Step(f"exact {name}.le_refl {left.inside(4)}")
        for label, item in sequent.context:
            if item.head not in ("≤", "<") or item.parts[0] is not left:
                continue
            for (first, second), (shown, lemma) in _TRANSITIVITY.items():
                if item.head == first and goal.head == shown:
                    rest = sequent.aim(language(second, item.parts[1], right))
                    yield Step(f"apply {name}.{lemma} {label}", (rest,))
        if goal.head != "=" and left.head == right.head == "+":
            lemma = "add_le_add" if goal.head == "≤" else "add_lt_add"
            halves = (
                language(goal.head, *pair)
                for pair in zip(left.parts, right.parts, strict=True)
            )
            yield Step(f"apply {name}.{lemma}", tuple(sequent.aim(h) for h in halves))

    def _rewrites(self, sequent: Sequent, last: bool) -> Iterator[Step]:
        """`rw` with an equation or commutativity, in the goal or in a hypothesis."""
        language, goal, context = self.language, sequent.goal, sequent.context
        rules = [
            rule
            for label, item in context
            if item.head == "="
            for rule in (
                (label, label, *item.parts),
                (label, f"← {label}", *reversed(item.parts)),
            )
        ]
        for old, new in self._sums(goal, *(item for _, item in context)).items():
            left, right = old.parts
            text = f"{self.name}.add_comm {left.inside(4)} {right.inside(4)}"
            rules.append(("", text, old, new))
        known = {item for _, item in context}
        for source, text, old, new in rules:
            if old in goal.contents:
                changed = language.replace(goal, old, new)
                yield rewritten_goal(sequent, text, changed)
            if last:
                continue
            for index, (label, item) in enumerate(context):
                if label == source or old not in item.contents:
                    continue
                changed = language.replace(item, old, new)
                if changed not in known:
                    yield rewritten_fact(sequent, index, text, changed)

    def _sums(self, *items: Expression) -> dict[Expression, Expression]:
        """The sums that occur, and each with its parts exchanged."""
        sums = {}
        for item in items:
            if item not in self._sums_of:
                self._sums_of[item] = [p for p in item.subterms() if p.head == "+"]
            for part in self._sums_of[item]:
                sums[part] = self.language("+", *reversed(part.parts))
        return sums

    def _witnesses(self, sequent: Sequent) -> Iterator[Step]:
        """`exists` for the goal, `obtain` for a hypothesis."""
        language, goal = self.language, sequent.goal
        context = [item for _, item in sequent.context]
        for label, item in sequent.context:
            if item.head == "∃":
                body = language.replace(item.parts[1], self._bound, self._obtained)
                line = f"obtain ⟨{OBTAINED}, h{sequent.fresh}⟩ := {label}"
                yield Step(line, (sequent.add(body, drop=label),))
        if goal.head == "∃":
            for witness in map(language, VARIABLES + OBTAINED):
                if not any(witness in item.contents for item in (goal, *context)):
                    continue
                body = language.replace(goal.parts[1], self._bound, witness)
                # `exists` ends by trying `trivial`.
                after = () if trivial(body, context) else (sequent.aim(body),)
                yield Step(f"exists {witness.text}", after)


def _pointless(item: Expression) -> bool:
    return item.head in ("≤", "=") and item.parts[0] is item.parts[1]
