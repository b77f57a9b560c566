"""Calls in fenced blocks, for models whose chat template knows no tools."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fdjax.data.formats import PromptFormat
from fdjax.data.formats.places import fenced
from fdjax.episodes.calls import (
    Call,
    CallError,
    Messages,
    call_of,
    first_value,
)
from fdjax.judge.fences import read
from fdjax.tools import Observation, ToolSpec

__all__ = ["Fenced"]

_MARK = "tool"
_RULES = """You may use tools. To use one, write a block like this and end your turn:

```tool
{"name": "NAME", "arguments": {"ARGUMENT": "VALUE"}}
```

The block holds one JSON object. What the tool says comes in the next message. Without
such a block your message is your final answer. The tools:
"""


@dataclass(frozen=True, kw_only=True)
class Fenced:
    """Blocks marked `tool`, each a JSON object; answers are a message of the user's."""

    specs: Sequence[ToolSpec]
    place: Literal["system", "user"] = "system"
    """Where the model is told of the tools: in the system message, or before the
    question where the chat template has no system message."""

    def asking(self, format: PromptFormat) -> PromptFormat:
        """The format with the rules and the tools before it (`CallFormat`)."""
        told = "\n".join([_RULES, *map(_told, self.specs)])
        if self.place == "user":
            # What looks like a template in it is text.
            return replace(
                format, user=f"{{% raw %}}{told}{{% endraw %}}\n\n{format.user}"
            )
        before = f"{format.system}\n\n" if format.system else ""
        return replace(format, system=f"{before}{told}")

    def read(self, text: str) -> tuple[Call, ...]:
        """The calls of a turn (`CallFormat`)."""
        calls = []
        for block in read(text).blocks:
            if block.mark != _MARK:
                continue
            if not block.closed:
                raise CallError("the block of the call is not closed")
            value, end = first_value(block.text, 0)
            if block.text[end:].strip():
                raise CallError(
                    "a block holds one JSON object, and something follows it: write a "
                    "block for each call"
                )
            calls.append(call_of(value))
        return tuple(calls)

    def messages(self, observations: Sequence[Observation]) -> Messages:
        """One message of the user's with all answers (`CallFormat`)."""
        answers = [fenced(each.text, "output") for each in observations]
        return [{"role": "user", "content": "\n\n".join(answers)}]


def _told(spec: ToolSpec) -> str:
    """A tool and its arguments, a line each."""
    lines = [f"{spec.name}: {spec.description}"]
    for each in spec.parameters:
        default = "" if each.default is None else f"; {each.default} by default"
        lines.append(f"  {each.name} ({each.type}{default}): {each.description}")
    return "\n".join(lines)
