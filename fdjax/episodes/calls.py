"""How a model writes calls, and what is wrong with one that cannot be read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from fdjax.data.formats import PromptFormat
from fdjax.tools import Observation, ToolSpec

__all__ = ["Call", "CallError", "CallFormat", "call_of", "first_value", "functions"]

Messages = list[dict[str, str]]

_DEEPEST = 32
"""Brackets inside each other in a call; tools take far fewer."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A tool by its name, with arguments that nobody has looked at yet."""

    name: str
    arguments: Mapping[str, Any]


class CallError(Exception):
    """What is wrong with a call, in words for the model."""


@runtime_checkable
class CallFormat(Protocol):
    """How calls are written, and their answers."""

    @property
    def specs(self) -> Sequence[ToolSpec]:
        """The tools that a model is told of."""
        ...

    def asking(self, format: PromptFormat) -> PromptFormat:
        """A prompt format that also tells of the tools."""
        ...

    def read(self, text: str) -> tuple[Call, ...]:
        """The calls in a turn behind its thinking; none where it is the answer.

        Raises:
          CallError: something in it is neither a call nor an answer.
        """
        ...

    def messages(self, observations: Sequence[Observation]) -> Messages:
        """The answers to a turn's calls, as messages of the chat."""
        ...


def functions(specs: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """The tools as chat templates take them."""
    return [
        {
            "type": "function",
            "function": {
                "name": spec.name,
                "description": spec.description,
                "parameters": spec.schema,
            },
        }
        for spec in specs
    ]


def first_value(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins behind blanks at a position, and where it ends.

    Raises:
      CallError: there is none, or it holds what JSON does not have.
    """
    while start < len(text) and text[start].isspace():
        start += 1
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise CallError(
            f"the call is not valid JSON: {error.msg}, at its character "
            f"{error.pos - start + 1}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CallError(f"the call is not valid JSON: {error}") from error


def call_of(value: Any) -> Call:
    """The call that a JSON value is.

    Raises:
      CallError: it is another value.
    """
    if not isinstance(value, dict) or set(value) != {"name", "arguments"}:
        given = ", ".join(map(str, value)) if isinstance(value, dict) else value
        raise CallError(
            'a call is a JSON object with the keys "name" and "arguments", not '
            f"{str(given)[:80]!r}"
        )
    name, arguments = value["name"], value["arguments"]
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise CallError('"name" is a text and "arguments" a JSON object')
    if _deeper(arguments, _DEEPEST):
        raise CallError(f"its brackets are nested deeper than {_DEEPEST}")
    return Call(name=name, arguments=arguments)


def _deeper(value: Any, most: int) -> bool:
    """Whether lists and objects are nested deeper.

    JSON may be read deeper than it can be written.
    """
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return not most or any(_deeper(item, most - 1) for item in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key occurs twice in an object")
    return values


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
