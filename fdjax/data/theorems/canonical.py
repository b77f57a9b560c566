"""When two statements are one theorem: equal up to names and order of hypotheses."""

import itertools
import re
from collections.abc import Iterator, Sequence

from fdjax.errors import DataError
from fdjax.records import Problem

__all__ = ["canonical_key"]

_TOKEN = re.compile(r"[^\W\d][\w']*|\d+|\S")
_PROPOSITION = frozenset("≤<=≥>≠∈∧∨→¬↔∃∀|") - {"→"}

_Formula = tuple[str, ...]


def canonical_key(problem: Problem) -> str:
    """A text that is equal for theorems equal up to renaming and hypothesis order.

    Variables, hypotheses and the theorem itself may be renamed, hypotheses permuted,
    and variables without occurrence dropped. The key is the least text over all
    renamings that respect how each variable occurs.

    Raises:
      DataError: the statement is not `theorem name (binders) : goal`.
    """
    variables, formulas = _parse(problem)
    classes = _classes(variables, formulas)
    best: str | None = None
    for order in itertools.product(*map(itertools.permutations, classes)):
        names = {
            variable: f"v{index}"
            for index, variable in enumerate(itertools.chain.from_iterable(order))
        }
        lines = [
            " ".join(names.get(token, token) for token in formula)
            for formula in formulas
        ]
        text = " ; ".join(sorted(lines))
        if best is None or text < best:
            best = text
    assert best is not None
    return best


def _parse(problem: Problem) -> tuple[list[str], list[_Formula]]:
    """The variables that occur; hypotheses, goal and their types as formulas."""
    tokens = _TOKEN.findall(problem.statement)
    if len(tokens) < 4 or tokens[0] != "theorem":
        raise _unreadable(problem)
    position = 2
    types: dict[str, _Formula] = {}
    formulas: list[_Formula] = []
    while position < len(tokens) and tokens[position] == "(":
        end = _closing(tokens, position)
        inside = tokens[position + 1 : end]
        if ":" not in inside:
            raise _unreadable(problem)
        colon = inside.index(":")
        body = inside[colon + 1 :]
        if _is_proposition(body, types):
            formulas += [("⊢h", *_bound(body))] * colon
        else:
            types |= dict.fromkeys(inside[:colon], tuple(body))
        position = end + 1
    if position >= len(tokens) or tokens[position] != ":":
        raise _unreadable(problem)
    formulas.append(("⊢", *_bound(tokens[position + 1 :])))
    used = {token for formula in formulas for token in formula}
    for name in reversed(types):
        if name in used:
            used |= set(types[name])
            formulas.append((name, ":", *types[name]))
    return [name for name in types if name in used], formulas


def _unreadable(problem: Problem) -> DataError:
    return DataError(
        f"Expected a statement `theorem name (binders) : goal`, got "
        f"{problem.statement!r}; write it in that form to compare it."
    )


def _closing(tokens: Sequence[str], start: int) -> int:
    depth = 0
    for index in range(start, len(tokens)):
        depth += (tokens[index] == "(") - (tokens[index] == ")")
        if depth == 0:
            return index
    return len(tokens)


def _is_proposition(body: Sequence[str], types: dict[str, _Formula]) -> bool:
    """Whether a binder's type is a hypothesis rather than the type of a variable."""
    return any(token in _PROPOSITION or types.get(token) == ("Prop",) for token in body)


def _bound(tokens: Sequence[str]) -> Iterator[str]:
    """The formula with bound variables numbered in order of appearance."""
    names: dict[str, str] = {}
    binding = False
    for token in tokens:
        if token in ("∃", "∀"):
            binding = True
        elif token in (",", ":"):
            binding = False
        elif binding:
            names[token] = f"_{len(names) + 1}"
        yield names.get(token, token)


def _classes(variables: list[str], formulas: list[_Formula]) -> list[list[str]]:
    """Variables grouped by how they occur, in an order that no renaming changes."""
    colours = dict.fromkeys(variables, 0)
    for _ in variables:
        signatures = {
            variable: sorted(
                [
                    "*" if token == variable else f"{colours.get(token, token)}"
                    for token in formula
                ]
                for formula in formulas
                if variable in formula
            )
            for variable in variables
        }
        ranked = sorted(signatures.values())
        refined = {v: ranked.index(signatures[v]) for v in variables}
        if refined == colours:
            break
        colours = refined
    return [
        [variable for variable in variables if colours[variable] == colour]
        for colour in sorted(set(colours.values()))
    ]
