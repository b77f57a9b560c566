"""Tactics for lists: rewriting by lemmas and hypotheses, induction."""

import itertools
from collections.abc import Iterator

from fdjax.data.theorems.expression import Expression, Language
from fdjax.data.theorems.list_language import LISTS, OBTAINED, list_lemmas
from fdjax.data.theorems.logic import (
    logical_steps,
    reflexive,
    rewritten_fact,
    rewritten_goal,
)
from fdjax.data.theorems.search import Sequent, Step

__all__ = ["ListTactics"]


class ListTactics:
    """What may be done in a state of a list theorem."""

    def __init__(self, language: Language):
        self.language = language
        self._nil, self._bound = language("[]"), language("x")
        self._obtained = language(OBTAINED)
        self._lists = [language(name) for name in LISTS]
        self._lemmas = list_lemmas(language)
        self._by_lemma: dict[Expression, list[tuple[str, Expression]]] = {}

    def steps(self, sequent: Sequent, last: bool) -> Iterator[Step]:
        """Logic, equality, rewriting by lemmas and hypotheses, induction."""
        goal, context = sequent.goal, sequent.context
        if reflexive(goal):
            # Nothing else: every `rw`, even one `at` a hypothesis, would end this goal.
            yield Step("rfl")
            return
        yield from logical_steps(self.language, sequent, last)
        yield from self._equality(sequent)
        for text, changed in self._rewrites(goal, context):
            yield rewritten_goal(sequent, text, changed)
        if last:
            return
        known = {item for _, item in context}
        for index, (_, item) in enumerate(context):
            if not _about_members(item):
                continue
            for text, changed in self._rewrites(item, context):
                if changed not in known:
                    yield rewritten_fact(sequent, index, text, changed)
        yield from self._induction(sequent)

    def _equality(self, sequent: Sequent) -> Iterator[Step]:
        goal = sequent.goal
        if goal.head != "=":
            return
        if self.computes(goal):
            yield Step("rfl")
        equations = [(name, item) for name, item in sequent.context if item.head == "="]
        for name, item in equations:
            if item.parts == goal.parts[::-1]:
                yield Step(f"exact Eq.symm {name}")
        for (one, first), (two, second) in itertools.permutations(equations, 2):
            ends = (first.parts[0], second.parts[1])
            if first.parts[1] is second.parts[0] and ends == goal.parts:
                yield Step(f"exact Eq.trans {one} {two}")

    def _rewrites(
        self, target: Expression, context: tuple[tuple[str, Expression], ...]
    ) -> Iterator[tuple[str, Expression]]:
        """What `rw` can do to `target`: its argument and the result."""
        replace = self.language.replace
        if target not in self._by_lemma:
            self._by_lemma[target] = [
                (name, replace(target, old, new))
                for name, old, new in self.instances(target)
            ]
        yield from self._by_lemma[target]
        for label, item in context:
            if item.head == "=":
                left, right = item.parts
                if left in target.contents:
                    yield label, replace(target, left, right)
                if right in target.contents:
                    yield f"← {label}", replace(target, right, left)
            elif item.head == "∀":
                yield from self._specialise(label, item, target)

    def instances(
        self, target: Expression
    ) -> Iterator[tuple[str, Expression, Expression]]:
        """Lemma, what it matches first in `target`, and what replaces that.

        `rw` fixes the lemma's variables at the first match.
        """
        subterms = list(target.subterms())
        for name, lemma in self._lemmas.items():
            for part in subterms:
                result = lemma(part)
                if result is not None:
                    if result is not part:
                        yield name, part, result
                    break

    def _specialise(
        self, label: str, rule: Expression, target: Expression
    ) -> Iterator[tuple[str, Expression]]:
        """`rw` with a pointwise equation, at its first match."""
        left, right = rule.parts[1].parts
        for part in target.subterms():
            argument, pattern = part, left
            while pattern.head == argument.head == "call" and (
                pattern.parts[0] is argument.parts[0]
            ):
                pattern, argument = pattern.parts[1], argument.parts[1]
            if pattern is self._bound:
                new = self.language.replace(right, self._bound, argument)
                yield label, self.language.replace(target, part, new)
                return

    def _induction(self, sequent: Sequent) -> Iterator[Step]:
        make, goal = self.language, sequent.goal
        heads = {part.head for part in goal.subterms()}
        if "map" not in heads or OBTAINED in heads or goal.head != "=":
            return
        fixed = {part for _, item in sequent.context for part in item.subterms()}
        for variable in self._lists:
            if variable.head not in heads or variable in fixed:
                continue
            base = sequent.aim(make.replace(goal, variable, self._nil))
            longer = make("::", self._obtained, variable)
            step = sequent.add(goal).aim(make.replace(goal, variable, longer))
            yield Step(
                f"induction {variable.text} with",
                (base, step),
                (
                    "| nil =>",
                    f"| cons {OBTAINED} {variable.text} h{sequent.fresh} =>",
                ),
            )

    def computes(self, item: Expression) -> bool:
        """Whether it is an equation whose sides unfold to the same, as for `rfl`."""
        return item.head == "=" and (
            self._unfold(item.parts[0]) is self._unfold(item.parts[1])
        )

    def _unfold(self, term: Expression) -> Expression:
        """What the term unfolds to, as far as `rfl` sees it."""
        if not term.parts:
            return term
        make = self.language
        parts = tuple([self._unfold(part) for part in term.parts])
        first = parts[0]
        if term.head == "++" and first.head == "[]":
            return parts[1]
        if term.head == "++" and first.head == "::":
            rest = self._unfold(make("++", first.parts[1], parts[1]))
            return make("::", first.parts[0], rest)
        if term.head in ("map", "reverse") and first.head == "[]":
            return first
        if term.head == "map" and first.head == "::":
            image = make("call", parts[1], first.parts[0])
            return make(
                "::", image, self._unfold(make("map", first.parts[1], parts[1]))
            )
        return make(term.head, *parts)


def _about_members(item: Expression) -> bool:
    return any(part.head == "∈" for part in item.subterms())
