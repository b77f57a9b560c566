"""Calls as Hermes and Qwen write them: JSON between tags, answered as the tool."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fdjax.data.formats import PromptFormat
from fdjax.episodes.calls import (
    Call,
    CallError,
    Messages,
    call_of,
    first_value,
    functions,
)
from fdjax.tools import Observation, ToolSpec

__all__ = ["Hermes"]

_OPENING, _CLOSING = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, kw_only=True)
class Hermes:
    r"""`<tool_call>{"name": …, "arguments": {…}}</tool_call>`, one or more, at the end.

    The model's own chat template tells of the tools and writes their answers.

    >>> [call] = Hermes(specs=()).read(
    ...     'Look.\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    ... )
    >>> call.name
    'f'
    """

    specs: Sequence[ToolSpec]

    def asking(self, format: PromptFormat) -> PromptFormat:
        """The format with the tools as an argument of its template (`CallFormat`)."""
        tools = functions(self.specs)
        return replace(format, arguments={**format.arguments, "tools": tools})

    def read(self, text: str) -> tuple[Call, ...]:
        """The calls of a turn (`CallFormat`)."""
        position = text.find(_OPENING)
        if position < 0:
            if _CLOSING in text:
                raise CallError(f"there is {_CLOSING} without {_OPENING} before it")
            return ()
        calls = []
        while position < len(text):
            if not text.startswith(_OPENING, position):
                raise CallError(
                    "behind a call there may only be other calls: end your turn there"
                )
            value, end = first_value(text, position + len(_OPENING))
            end = _behind_blanks(text, end)
            if not text.startswith(_CLOSING, end):
                raise CallError(f"expected {_CLOSING} behind the call's JSON object")
            calls.append(call_of(value))
            position = _behind_blanks(text, end + len(_CLOSING))
        return tuple(calls)

    def messages(self, observations: Sequence[Observation]) -> Messages:
        """A message of the tool's for each call (`CallFormat`)."""
        return [
            {"role": "tool", "name": each.tool, "content": each.text}
            for each in observations
        ]


def _behind_blanks(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position
