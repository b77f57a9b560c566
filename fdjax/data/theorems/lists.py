"""Equations and membership of lists: rewriting, case distinction, induction."""

import itertools
import random
from collections.abc import Callable, Iterator

from fdjax.data.theorems.expression import Expression, Language
from fdjax.data.theorems.logic import logical_steps
from fdjax.data.theorems.search import Candidate, Sequent, Step, needs_hypotheses

__all__ = ["ListFamily"]

_LISTS, _ELEMENTS, _FUNCTIONS = "lmk", "ab", "fg"
_OBTAINED = "y"
"""What `induction` calls the first element; the bound variable is always x."""
_VALUATIONS = 500


class ListFamily:
    """Lists over an arbitrary type, with equations and memberships as hypotheses."""

    def __init__(self) -> None:
        self.language = _language()
        make = self.language
        self._nil = make("[]")
        self._lists = [make(name) for name in _LISTS]
        self._elements = [make(name) for name in _ELEMENTS]
        self._functions = [make(name) for name in _FUNCTIONS]
        self._bound, self._obtained = make("x"), make(_OBTAINED)
        self._lemmas = _lemmas(make)
        self._by_lemma: dict[Expression, list[tuple[str, Expression]]] = {}

    def draw(self, rng: random.Random) -> Candidate | None:
        """A sequent that no sample valuation refutes."""
        kind = rng.random()
        if kind < 0.45:
            hypotheses, goal = self._equation(rng)
        elif kind < 0.85:
            hypotheses, goal = self._membership(rng)
        else:
            hypotheses, goal = self._pointwise(rng)
        if len(set(hypotheses)) < len(hypotheses) or self._trivial(goal, hypotheses):
            return None
        least = len(hypotheses) - 1 if len(hypotheses) > 1 else len(hypotheses)
        if not needs_hypotheses(self.language, hypotheses, goal, least=least):
            return None
        named = tuple((f"h{i + 1}", item) for i, item in enumerate(hypotheses))
        return Candidate(
            _binders([goal, *hypotheses]),
            Sequent(named, goal, len(named) + 1),
            self.language,
            self.steps,
        )

    # Statements

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
                for _, old, new in self._instances(end)
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
        left, right, before, after = rng.choice(
            (
                (apply_f, x, f, None),
                (apply_f, apply_g, f, g),
                (make("call", f, apply_g), x, (f, g), None),
                (make("call", f, apply_g), apply_g, (f, g), g),
            )
        )
        rule = make("∀", x, make("=", left, right))
        base = self._term(rng, 1, mapped=False)

        def mapped(functions: object) -> Expression:
            if functions is None:
                return base
            if isinstance(functions, tuple):
                return make("map", make("map", base, functions[1]), functions[0])
            return make("map", base, functions)

        sides = [mapped(before), mapped(after)]
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
            left = self._term(rng, depth - 1 if rng.random() < 0.6 else 0, mapped=mapped)
            right = self._term(rng, depth - 1 if rng.random() < 0.4 else 0, mapped=mapped)
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
        return self.language("=", self.language("length", one), self.language("length", two))

    def _member(self, rng: random.Random) -> Expression:
        element = self._elements[rng.random() < 0.25]
        return self.language("∈", element, self._term(rng, rng.choice((0, 1, 1, 2)), mapped=False))

    # Tactics

    def steps(self, sequent: Sequent, last: bool) -> Iterator[Step]:
        """Logic, equality, rewriting by lemmas and hypotheses, induction."""
        goal, context = sequent.goal, sequent.context
        yield from logical_steps(self.language, sequent, last)
        yield from self._equality(sequent)
        for text, changed in self._rewrites(goal, context):
            after = () if _reflexive(changed) else (sequent.aim(changed),)
            yield Step(f"rw [{text}]", after, reversible=True)
        if last:
            return
        known = {item for _, item in context}
        for index, (label, item) in enumerate(context):
            if not _about_members(item):
                continue
            for text, changed in self._rewrites(item, context):
                if changed not in known:
                    replaced = (label, changed)
                    state = (*context[:index], replaced, *context[index + 1 :])
                    yield Step(
                        f"rw [{text}] at {label}",
                        (sequent._replace(context=state),),
                        reversible=True,
                    )
        yield from self._induction(sequent)

    def _equality(self, sequent: Sequent) -> Iterator[Step]:
        goal = sequent.goal
        if goal.head != "=":
            return
        if _reflexive(goal) or self._compute(goal.parts[0]) is self._compute(
            goal.parts[1]
        ):
            yield Step("rfl")
        equations = [
            (name, item) for name, item in sequent.context if item.head == "="
        ]
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
                for name, old, new in self._instances(target)
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

    def _instances(
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
        if "map" not in heads or _OBTAINED in heads or goal.head != "=":
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
                    f"| cons {_OBTAINED} {variable.text} h{sequent.fresh} =>",
                ),
            )

    def _compute(self, term: Expression) -> Expression:
        """What the term unfolds to, as far as `rfl` sees it."""
        if not term.parts:
            return term
        make = self.language
        parts = tuple([self._compute(part) for part in term.parts])
        first = parts[0]
        if term.head == "++" and first.head == "[]":
            return parts[1]
        if term.head == "++" and first.head == "::":
            rest = self._compute(make("++", first.parts[1], parts[1]))
            return make("::", first.parts[0], rest)
        if term.head in ("map", "reverse") and first.head == "[]":
            return first
        if term.head == "map" and first.head == "::":
            image = make("call", parts[1], first.parts[0])
            return make("::", image, self._compute(make("map", first.parts[1], parts[1])))
        return make(term.head, *parts)

    def _trivial(self, goal: Expression, hypotheses: list[Expression]) -> bool:
        """Whether Lean's `trivial` proves it."""
        if goal.head == "∧":
            return all(self._trivial(part, hypotheses) for part in goal.parts)
        if goal.head == "=" and self._compute(goal.parts[0]) is self._compute(
            goal.parts[1]
        ):
            return True
        return goal in hypotheses


def _reflexive(item: Expression) -> bool:
    return item.head == "=" and item.parts[0] is item.parts[1]


def _about_members(item: Expression) -> bool:
    return any(part.head == "∈" for part in item.subterms())


def _binders(items: list[Expression]) -> str:
    """The variables that occur, with their types."""
    used = {part.head for item in items for part in item.subterms()}
    groups = (
        (_FUNCTIONS, "α → α"),
        (_ELEMENTS, "α"),
        (_LISTS, "List α"),
    )
    binders = ["(α : Type)"]
    for names, kind in groups:
        present = [name for name in names if name in used]
        if present:
            binders.append(f"({' '.join(present)} : {kind})")
    return " ".join(binders)


def _language() -> Language:
    rng = random.Random(0)
    lists = [
        values for n in range(3) for values in itertools.product((0, 1), repeat=n)
    ]
    functions = list(itertools.product((0, 1), repeat=2))
    choices = {
        **dict.fromkeys(_LISTS, lists),
        **dict.fromkeys(_ELEMENTS + _OBTAINED, [0, 1]),
        **dict.fromkeys(_FUNCTIONS, functions),
        "[]": [()],
    }
    return Language(
        {
            name: [rng.choice(values) for _ in range(_VALUATIONS)]
            for name, values in choices.items()
        },
        {
            "=": lambda left, right: left == right,
            "∈": lambda element, items: element in items,
            "+": int.__add__,
            "++": tuple.__add__,
            "::": lambda element, items: (element, *items),
            "length": len,
            "reverse": lambda items: items[::-1],
            "map": lambda items, function: tuple(function[item] for item in items),
            "call": lambda function, element: function[element],
        },
        domain=(0, 1),
    )


def _lemmas(
    make: Language,
) -> dict[str, Callable[[Expression], Expression | None]]:
    """Each lemma's effect where its left side matches, None elsewhere."""

    def over(
        outer: str, inner: str, rewrite: Callable[..., Expression]
    ) -> Callable[[Expression], Expression | None]:
        def lemma(term: Expression) -> Expression | None:
            if term.head == outer and term.parts[-1 if outer == "∈" else 0].head == inner:
                return rewrite(*term.parts)
            return None

        return lemma

    def swap(term: Expression) -> Expression | None:
        return make("+", *term.parts[::-1]) if term.head == "+" else None

    def distribute(outer: str, joined: str) -> Callable[..., Expression]:
        return lambda term, *more: make(
            joined, *(make(outer, part, *more) for part in term.parts)
        )

    return {
        "List.append_assoc": over(
            "++",
            "++",
            lambda term, last: make(
                "++", term.parts[0], make("++", term.parts[1], last)
            ),
        ),
        "List.length_append": over("length", "++", distribute("length", "+")),
        "List.length_reverse": over(
            "length", "reverse", lambda term: make("length", term.parts[0])
        ),
        "List.length_map": over(
            "length", "map", lambda term: make("length", term.parts[0])
        ),
        "List.map_append": over("map", "++", distribute("map", "++")),
        "List.map_reverse": over(
            "map",
            "reverse",
            lambda term, function: make("reverse", make("map", term.parts[0], function)),
        ),
        "List.map_cons": over(
            "map",
            "::",
            lambda term, function: make(
                "::",
                make("call", function, term.parts[0]),
                make("map", term.parts[1], function),
            ),
        ),
        "List.reverse_append": over(
            "reverse",
            "++",
            lambda term: make(
                "++", *(make("reverse", part) for part in reversed(term.parts))
            ),
        ),
        "List.reverse_reverse": over("reverse", "reverse", lambda term: term.parts[0]),
        "List.mem_append": over(
            "∈",
            "++",
            lambda element, term: make(
                "∨", *(make("∈", element, part) for part in term.parts)
            ),
        ),
        "List.mem_reverse": over(
            "∈", "reverse", lambda element, term: make("∈", element, term.parts[0])
        ),
        "Nat.add_comm": swap,
    }
