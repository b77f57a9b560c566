"""Order and equality over Nat or Int, by named lemmas one step at a time."""

import itertools
import random
from collections.abc import Iterator

from fdjax.data.theorems.expression import Expression, Language
from fdjax.data.theorems.logic import logical_steps
from fdjax.data.theorems.search import Candidate, Sequent, Step, needs_hypotheses

__all__ = ["ArithmeticFamily"]

_VARIABLES = "abcd"
_OBTAINED = "y"
"""What `obtain` calls a witness; the bound variable is always x."""

_TRANSITIVITY = {
    ("≤", "≤"): ("≤", "le_trans"),
    ("≤", "<"): ("<", "lt_of_le_of_lt"),
    ("<", "≤"): ("<", "lt_of_lt_of_le"),
    ("<", "<"): ("<", "lt_trans"),
}


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
        names = [carrier.language(v) for v in _VARIABLES[: rng.choice((3, 3, 4))]]
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
            if goal in hypotheses or _trivial(goal, hypotheses):
                continue
            if needs_hypotheses(
                carrier.language, hypotheses, goal, least=max(1, count - 2)
            ):
                break
        else:
            return None
        used = {part.head for item in (goal, *hypotheses) for part in item.subterms()}
        variables = " ".join(v for v in _VARIABLES if v in used)
        named = tuple((f"h{i + 1}", item) for i, item in enumerate(hypotheses))
        return Candidate(
            f"({variables} : {carrier.name})",
            Sequent(named, goal, count + 1),
            carrier.language,
            carrier.steps,
        )


def _trivial(goal: Expression, hypotheses: list[Expression]) -> bool:
    """Whether Lean's `trivial` proves it: by assumption, `=` or both parts."""
    if goal.head == "∧":
        return all(_trivial(part, hypotheses) for part in goal.parts)
    return goal in hypotheses or _reflexive_equation(goal)


def _reflexive(item: Expression) -> bool:
    return item.head in ("≤", "=") and item.parts[0] is item.parts[1]


def _reflexive_equation(item: Expression) -> bool:
    """Whether `rw` ends the goal; it does not try reflexivity of ≤."""
    return item.head == "=" and item.parts[0] is item.parts[1]


class _Carrier:
    """Nat or Int: its language, its formulas, its tactics."""

    def __init__(self, name: str, values: range):
        self.name = name
        variables = _VARIABLES + _OBTAINED
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
        self._obtained = self.language(_OBTAINED)
        self._sums_of: dict[Expression, list[Expression]] = {}

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

    def steps(self, sequent: Sequent, last: bool) -> Iterator[Step]:
        """Logic, lemmas on one or two facts, rewriting, witnesses."""
        yield from logical_steps(self.language, sequent, last)
        known = {item for _, item in sequent.context}
        for term, result in self._conclusions(sequent):
            if result is sequent.goal:
                yield Step(f"exact {term}")
            elif not (last or result in known or _reflexive(result)):
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
                    yield f"{name}.{rule[1]} {one} {two}", language(rule[0], left, right)
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
        for old, new in self._sums(
            goal, *(item for _, item in context)
        ).items():
            left, right = old.parts
            text = f"{self.name}.add_comm {left.inside(4)} {right.inside(4)}"
            rules.append(("", text, old, new))
        known = {item for _, item in context}
        for source, text, old, new in rules:
            if old in goal.contents:
                changed = language.replace(goal, old, new)
                after = () if _reflexive_equation(changed) else (sequent.aim(changed),)
                yield Step(f"rw [{text}]", after, reversible=True)
            if last:
                continue
            for index, (label, item) in enumerate(context):
                if label == source or old not in item.contents:
                    continue
                changed = language.replace(item, old, new)
                if changed not in known:
                    replaced = (label, changed)
                    state = (*context[:index], replaced, *context[index + 1 :])
                    yield Step(
                        f"rw [{text}] at {label}",
                        (sequent._replace(context=state),),
                        reversible=True,
                    )

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
                line = f"obtain ⟨{_OBTAINED}, h{sequent.fresh}⟩ := {label}"
                yield Step(line, (sequent.add(body, drop=label),))
        if goal.head == "∃":
            for witness in map(language, _VARIABLES + _OBTAINED):
                if not any(witness in item.contents for item in (goal, *context)):
                    continue
                body = language.replace(goal.parts[1], self._bound, witness)
                # `exists` ends by trying `trivial`.
                after = () if _trivial(body, context) else (sequent.aim(body),)
                yield Step(f"exists {witness.text}", after)
