"""What a setting may be, and the error that says what it was instead."""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Protocol

from fdjax.errors import ConfigError

__all__ = [
    "FLAG",
    "INT32_MAX",
    "SEED",
    "Among",
    "Number",
    "Rule",
    "TupleOf",
    "Whole",
    "require",
    "require_fields",
]

INT32_MAX = 2**31 - 1
"""Largest integer of arrays; JAX refuses one beyond it while it traces."""
_FLOAT32_TINY = 2.0**-126
_FLOAT32_MAX = (2 - 2.0**-23) * 2.0**127


class Rule(Protocol):
    """A set of values; as text, it completes "expected … to be"."""

    def allows(self, value: Any) -> bool:
        """Whether the value is one of them."""
        ...


@dataclass(frozen=True)
class Whole:
    """Integers from `least` to `most`, both included; neither True nor 2.0 is one."""

    least: int
    most: int | None = None

    def allows(self, value: Any) -> bool:
        """Whether the value is an integer in the range."""
        return (
            _is(value, Integral)
            and value >= self.least
            and (self.most is None or value <= self.most)
        )

    def __str__(self) -> str:
        if self.most is None:
            return f"an integer of at least {self.least}"
        return f"an integer from {self.least} to {self.most}"


@dataclass(frozen=True, kw_only=True)
class Number:
    """Finite numbers between two bounds; `above` and `below` are no part of it.

    Devices compute in float32 and int32: what becomes 0 or infinite there, or an
    integer that overflows, is no such number.
    """

    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf

    def allows(self, value: Any) -> bool:
        """Whether the value is a finite number in the range."""
        if not _is(value, Real):
            return False
        largest = INT32_MAX if _is(value, Integral) else _FLOAT32_MAX
        # Comparisons with NaN are false.
        return (
            (value == 0 or _FLOAT32_TINY <= abs(value) <= largest)
            and self.least <= value <= self.most
            and self.above < value < self.below
        )

    def __str__(self) -> str:
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (
                ("at least", self.least),
                ("above", self.above),
                ("at most", self.most),
                ("below", self.below),
            )
            if math.isfinite(bound)
        ]
        return " ".join(["a finite number", " and ".join(bounds)]).strip()


def _is(value: Any, kind: type) -> bool:
    """Whether it is a number of that kind; NumPy's are, True is none."""
    return isinstance(value, kind) and not isinstance(value, bool)


class Among:
    """One of a few values."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def allows(self, value: Any) -> bool:
        """Whether the value is one of them."""
        return any(type(value) is type(one) and value == one for one in self._values)

    def __str__(self) -> str:
        return "one of " + ", ".join(map(str, self._values))


FLAG = Among(True, False)
"""Booleans; the text "false" would count as true."""

SEED = Whole(0, 2**32 - 1)
"""Seeds that JAX and Grain tell apart: beyond it they repeat or fail."""


@dataclass(frozen=True)
class TupleOf:
    """Tuples, empty or of values that a rule allows; a list would not be hashable."""

    rule: Rule

    def allows(self, value: Any) -> bool:
        """Whether the value is such a tuple."""
        return isinstance(value, tuple) and all(map(self.rule.allows, value))

    def __str__(self) -> str:
        return f"a tuple, each entry {self.rule}"


def require(name: str, value: Any, rule: Rule, *, remedy: str = "") -> None:
    """Refuses a value that the rule does not allow.

    Args:
      name: of the setting, as whoever set it knows it.
      value: what it was set to.
      rule: what it may be.
      remedy: what to do, or why, where the rule does not say it.

    Raises:
      ConfigError: with the name, the rule and the value.
    """
    if not rule.allows(value):
        raise ConfigError(
            f"expected {name} to be {rule}, got {value!r}"
            + (f": {remedy}" if remedy else "")
        )


def require_fields(config: Any, **rules: Rule) -> None:
    """Refuses a configuration with a field that its rule does not allow.

    For `__post_init__`: the error names the class and the field.

    Raises:
      ConfigError: with the first such field, its rule and its value.
    """
    for field, rule in rules.items():
        require(f"{type(config).__name__}.{field}", getattr(config, field), rule)
