"""Tactics that families share: for the connectives, and rewriting."""

from collections.abc import Callable, Iterator, Sequence

from fdjax.data.theorems.expression import Expression, Language
from fdjax.data.theorems.search import Sequent, Step

__all__ = [
    "logical_steps",
    "reflexive",
    "rewritten_fact",
    "rewritten_goal",
    "trivial",
]


def reflexive(item: Expression) -> bool:
    """Whether it is an equation of equal sides, which ends a goal after any `rw`."""
    return item.head == "=" and item.parts[0] is item.parts[1]


def trivial(
    goal: Expression,
    hypotheses: Sequence[Expression],
    equal: Callable[[Expression], bool] = reflexive,
) -> bool:
    """Whether Lean's `trivial` proves it: assumption, `equal`, or `And.intro`.

    `apply And.intro <;> trivial`, which `trivial` tries, also closes A → A ∧ … where
    the implication's premises are the last halves of the conjunction.
    """
    if goal in hypotheses or equal(goal):
        return True
    premises: list[Expression] = []
    while goal.head == "→":
        premises.append(goal.parts[0])
        goal = goal.parts[1]
    if goal.head != "∧" or len(premises) > 2:
        return False
    given = len(goal.parts) - len(premises)
    return premises == list(goal.parts[given:]) and all(
        trivial(half, hypotheses, equal) for half in goal.parts[:given]
    )


def rewritten_goal(sequent: Sequent, rules: str, changed: Expression) -> Step:
    """`rw [rules]`, which makes the goal `changed` and ends it where that is `rfl`."""
    after = () if reflexive(changed) else (sequent.aim(changed),)
    return Step(f"rw [{rules}]", after, reversible=True)


def rewritten_fact(
    sequent: Sequent, index: int, rules: str, changed: Expression
) -> Step:
    """`rw [rules] at` the hypothesis at `index`, which becomes `changed`."""
    name, _ = sequent.context[index]
    after = (sequent.change(index, changed),)
    return Step(f"rw [{rules}] at {name}", after, reversible=True)


def logical_steps(language: Language, sequent: Sequent, last: bool) -> Iterator[Step]:
    """Every step by exact, intro, constructor, left, right, exfalso, apply, have, ….

    `exfalso` is offered everywhere; the search drops it where the sample valuations
    do not find the context contradictory.

    With `last`, what does not end the goal is left out.
    """
    known = {item: name for name, item in reversed(sequent.context)}
    for name, item in sequent.context:
        if item is sequent.goal:
            yield Step(f"exact {name}")
        elif item.head in ("→", "¬"):
            yield from _applications(language, sequent, name, item, known)
    if not last:
        yield from _goal_steps(language, sequent)
        for name, item in sequent.context:
            yield from _case_steps(language, sequent, name, item)


def _case_steps(
    language: Language, sequent: Sequent, name: str, item: Expression
) -> Iterator[Step]:
    """What takes a hypothesis apart or uses it backwards."""
    first, second = f"h{sequent.fresh}", f"h{sequent.fresh + 1}"
    if item.head in ("∧", "↔"):
        halves = _halves(language, item)
        yield Step(
            f"obtain ⟨{first}, {second}⟩ := {name}", (sequent.add(*halves, drop=name),)
        )
    elif item.head == "∨":
        left, right = (sequent.add(part, drop=name) for part in item.parts)
        renamed = (*right.context[:-1], (second, item.parts[1]))
        fresh = sequent.fresh + 2
        yield Step(
            f"rcases {name} with {first} | {second}",
            (left._replace(fresh=fresh), right._replace(context=renamed, fresh=fresh)),
        )
    premises = []
    while item.head in ("→", "¬"):
        premises.append(item.parts[0])
        item = item.parts[1] if item.head == "→" else language.false
        if item is sequent.goal:
            yield Step(f"apply {name}", tuple([sequent.aim(goal) for goal in premises]))
            break


def _halves(language: Language, item: Expression) -> tuple[Expression, Expression]:
    """What `constructor` and `obtain` split a conjunction or equivalence into."""
    left, right = item.parts
    if item.head == "∧":
        return left, right
    return language("→", left, right), language("→", right, left)


def _goal_steps(language: Language, sequent: Sequent) -> Iterator[Step]:
    goal = sequent.goal
    head, parts = goal.head, goal.parts
    if head == "→":
        yield Step(f"intro h{sequent.fresh}", (sequent.add(parts[0]).aim(parts[1]),))
    elif head == "¬":
        aimed = sequent.add(parts[0]).aim(language.false)
        yield Step(f"intro h{sequent.fresh}", (aimed,))
    elif head in ("∧", "↔"):
        left, right = _halves(language, goal)
        yield Step("constructor", (sequent.aim(left), sequent.aim(right)))
    elif head == "∨":
        yield Step("left", (sequent.aim(parts[0]),))
        yield Step("right", (sequent.aim(parts[1]),))
    if goal is not language.false:
        yield Step("exfalso", (sequent.aim(language.false),))


def _applications(
    language: Language,
    sequent: Sequent,
    name: str,
    item: Expression,
    known: dict[Expression, str],
) -> Iterator[Step]:
    """An implication applied to a hypothesis."""
    argument = known.get(item.parts[0])
    if argument is None:
        return
    result = item.parts[1] if item.head == "→" else language.false
    if result is sequent.goal:
        yield Step(f"exact {name} {argument}")
    elif item.head == "→" and result not in known:
        yield Step(
            f"have h{sequent.fresh} := {name} {argument}", (sequent.add(result),)
        )
