"""What an object is, as JSON values: its kind and its settings, never a secret."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from types import CellType, FunctionType, MethodType
from typing import Any

import numpy as np

from fdjax.http import NO_SECRET, redacted
from fdjax.run.config import RunConfig
from fdjax.run.context import RunContext

__all__ = ["described"]

_SECRET = re.compile(r"(key|token|secret|password|credential|auth|authorization)s?$")
"""Ends of the names under which secrets are kept."""
_HIDDEN = "(hidden)"
"""In place of texts that may be secrets."""


def described(value: Any) -> Any:
    """An object of settings, or one that works by some, as JSON values.

    - Of a dataclass its fields, but for those with `repr=False`.
    - Of any other object what its property `settings`, or else `identity`, says.
    - Of a function its name, and the numbers and functions that it has at hand, such as
      those of a schedule.
    - Of the rest its class; so of a run's own settings, which are written elsewhere.

    A text without a name is not told, nor one whose name says that it is a key, token,
    secret or password.

    >>> from fdjax.train import OptimizerConfig
    >>> described(OptimizerConfig(learning_rate=1e-6))["learning_rate"]
    1e-06
    """
    return _described(value, "", frozenset())


def _described(value: Any, name: str, above: frozenset[int]) -> Any:
    """The same, of what others hold under a name."""
    match value:
        case None | bool() | int() | float():
            return value
        case np.generic():
            return value.item()
        case str():
            hidden = not name or _SECRET.search(name.lower())
            return _HIDDEN if hidden else redacted(value, NO_SECRET)
        case PurePath():
            return str(value)
        case Enum():
            return value.name
        case RunConfig() | RunContext():
            return type(value).__qualname__
    if id(value) in above:  # it holds itself
        return type(value).__qualname__
    inner = functools.partial(_described, above=above | {id(value)})
    match value:
        case Mapping():
            return {str(key): inner(each, str(key)) for key, each in value.items()}
        case list() | tuple():
            return _placed([inner(each, name) for each in value])
        case set() | frozenset():
            return _placed([inner(each, name) for each in sorted(value, key=repr)])
    if (settings := _settings(value)) is not None:
        return {"type": type(value).__qualname__, **inner(settings, name)}
    return _function(value, inner) if callable(value) else type(value).__qualname__


def _placed(found: list[Any]) -> Any:
    """Objects by their places, so that a setting that differs has a name."""
    if not any(isinstance(each, dict) for each in found):
        return found
    return {str(place): each for place, each in enumerate(found)}


def _settings(value: Any) -> Mapping[str, Any] | None:
    """What an object says of itself; None where it does not."""
    if isinstance(value, type):
        return None
    if isinstance(getattr(type(value), "settings", None), property):
        found = value.settings
    elif is_dataclass(value):
        told = [field.name for field in fields(value) if field.repr]
        found = {name: getattr(value, name) for name in told}
    else:
        found = getattr(value, "identity", None)
    return found if isinstance(found, Mapping) else None


def _function(value: Callable[..., Any], inner: Callable[[Any, str], Any]) -> Any:
    """A function by its name, with what it has at hand."""
    value = inspect.unwrap(value)  # of decorators
    match value:
        case functools.partial():
            places = enumerate(value.args)
            placed = {str(place): inner(arg, "") for place, arg in places}
            named = {name: inner(arg, name) for name, arg in value.keywords.items()}
            return {"type": inner(value.func, ""), **placed, **named}
        case MethodType():
            return {"type": value.__qualname__, "self": inner(value.__self__, "")}
        case FunctionType() if value.__closure__:
            found = zip(value.__code__.co_freevars, value.__closure__, strict=True)
            cells = {name: _content(cell) for name, cell in found}
            plain = {name: each for name, each in cells.items() if _plain(each)}
            told = {name: inner(each, name) for name, each in plain.items()}
            return {"type": value.__qualname__, **told}
    return getattr(value, "__qualname__", type(value).__qualname__)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


def _plain(value: Any) -> bool:
    """Whether a function's value is a number or a function, or several of them.

    Others may be anything, such as the settings of the run or a client with its key.
    """
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return isinstance(value, bool | int | float | FunctionType | functools.partial)
