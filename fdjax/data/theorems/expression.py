"""Expressions of the generated theorems: one object each, with text and meaning.

Meaning is a bit mask over sample valuations of the variables. A hypothesis set whose
masks leave a valuation that the goal lacks refutes the goal, which prunes the search.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["Expression", "Language"]

CONNECTIVES = frozenset("∧∨→↔")
BINARY = CONNECTIVES | {"≤", "<", "=", "∈", "+", "++", "::"}
_ATOM = 5


def _level(head: str, parts: Sequence["Expression"]) -> int:
    """How tightly the outermost symbol binds; a child no tighter needs parentheses."""
    if head in CONNECTIVES or head in ("∃", "∀"):
        return 1
    if head in ("≤", "<", "=", "∈"):
        return 2
    if head in ("+", "++", "::"):
        return 3
    return 4 if head in ("map", "call") else _ATOM


class Expression:
    """A proposition or term; equal ones are the same object of one `Language`."""

    __slots__ = ("contents", "head", "level", "mask", "parts", "text", "values")

    def __init__(self, head: str, parts: tuple["Expression", ...]):
        self.head = head
        self.parts = parts
        self.level = _level(head, parts)
        # Every subterm; only ever asked for membership, so its order cannot matter.
        self.contents = frozenset((self,)).union(*(part.contents for part in parts))
        self.text = self._render()
        self.mask: int | None = None
        self.values: Sequence[Any] | None = None

    def inside(self, level: int) -> str:
        """The text as a child of something that binds at `level`."""
        return f"({self.text})" if self.level <= level else self.text

    def subterms(self) -> Iterator["Expression"]:
        """The expression and its parts, in the order in which Lean's `rw` looks."""
        yield self
        for part in self.parts:
            yield from part.subterms()

    def _render(self) -> str:
        head, parts = self.head, self.parts
        if not parts:
            return head
        if head in BINARY:
            left, right = (part.inside(self.level) for part in parts)
            return f"{left} {head} {right}"
        if head == "¬":
            return f"¬{parts[0].inside(1)}"
        if head in ("∃", "∀"):
            return f"{head} {parts[0].text}, {parts[1].text}"
        if head == "call":
            return f"{parts[0].text} {parts[1].inside(4)}"
        receiver = parts[0].inside(4)
        return f"{receiver}.{head}" + "".join(f" {part.text}" for part in parts[1:])


class Language:
    """Makes expressions over fixed variables and knows what they mean.

    Args:
      valuations: values of each variable, the same number for each.
      operations: what each head that is no connective computes from values.
      domain: values over which bound variables range.
    """

    def __init__(
        self,
        valuations: Mapping[str, Sequence[Any]],
        operations: Mapping[str, Callable[..., Any]],
        domain: Sequence[Any] = (),
    ):
        self._known: dict[tuple[Any, ...], Expression] = {}
        self._valuations = valuations
        self._operations = operations
        self._count = len(next(iter(valuations.values())))
        self.full = (1 << self._count) - 1
        self.false = self("False")
        self._constants = []
        for value in domain:
            constant = self(f"#{value}")
            constant.values = [value] * self._count
            self._constants.append(constant)

    def __call__(self, head: str, *parts: Expression) -> Expression:
        """The expression with this outermost symbol; the same object every time."""
        key = (head, *parts)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Expression(head, parts)
        return found

    def replace(
        self, expression: Expression, old: Expression, new: Expression
    ) -> Expression:
        """`expression` with every occurrence of `old` replaced by `new`."""
        if old not in expression.contents:
            return expression
        if expression is old:
            return new
        parts = [self.replace(part, old, new) for part in expression.parts]
        return self(expression.head, *parts)

    def mask(self, expression: Expression) -> int:
        """Bit i is set where the proposition holds in valuation i."""
        if expression.mask is None:
            expression.mask = self._mask(expression)
        return expression.mask

    def _mask(self, expression: Expression) -> int:
        head, parts = expression.head, expression.parts
        if head == "False":
            return 0
        if head in ("∃", "∀"):
            instances = [
                self.mask(self.replace(parts[1], parts[0], constant))
                for constant in self._constants
            ]
            mask = 0 if head == "∃" else self.full
            for instance in instances:
                mask = mask | instance if head == "∃" else mask & instance
            return mask
        if head == "¬":
            return self.full & ~self.mask(parts[0])
        if head in CONNECTIVES:
            left, right = self.mask(parts[0]), self.mask(parts[1])
            if head == "∧":
                return left & right
            if head == "∨":
                return left | right
            if head == "→":
                return self.full & ~left | right
            return self.full & ~(left ^ right)
        bits = "".join("1" if value else "0" for value in self._evaluate(expression))
        return int(bits[::-1], 2)

    def _evaluate(self, expression: Expression) -> Sequence[Any]:
        if expression.values is None:
            if expression.parts:
                operation = self._operations[expression.head]
                columns = [self._evaluate(part) for part in expression.parts]
                expression.values = list(map(operation, *columns))
            else:
                expression.values = self._valuations[expression.head]
        return expression.values
