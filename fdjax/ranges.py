"""What a setting may be, and the error that says what it was instead."""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Protocol

from fdjax.errors import ConfigError

__all__ = ["SEED", "Among", "Number", "Rule", "Whole", "require", "require_fields"]


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
    """Finite numbers between two bounds; `above` and `below` are no part of it."""

    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf

    def allows(self, value: Any) -> bool:
        """Whether the value is a finite number in the range."""
        # Comparisons with NaN are false.
        return (
            _is(value, Real)
            and -math.inf < value < math.inf
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
        return value in self._values

    def __str__(self) -> str:
        return "one of " + ", ".join(map(str, self._values))


SEED = Whole(0, 2**32 - 1)
"""Seeds that JAX and Grain tell apart: beyond it they repeat or fail."""


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
