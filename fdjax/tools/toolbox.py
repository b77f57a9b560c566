"""The tools of one episode: whatever happens in a call becomes text."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fdjax.errors import ConfigError
from fdjax.ranges import Number, Whole, require_fields
from fdjax.tools.tool import Tool, ToolError, ToolSpec
from fdjax.tools.workspace import Workspace

__all__ = ["CallLimits", "Observation", "Toolbox"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CallLimits:
    """What one call may use, whichever tool it is.

    Time and memory of Lean have limits of their own (`fdjax.lean.Limits`).
    """

    output_characters: int = 4000
    """Characters of an observation; the rest is left out, and the text says so."""
    wall_s: float = 600.0
    """Seconds until a call is given up, waiting for a free Lean worker included: far
    above what tools take, since what time decides is not the same in every run."""

    def __post_init__(self) -> None:
        require_fields(
            self, output_characters=Whole(100), wall_s=Number(least=0.001, most=86_400)
        )


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One call, and what the model was told."""

    tool: str
    """The name that was called; empty where no call could be read."""
    arguments: Mapping[str, Any]
    """As they were given."""
    text: str
    """What the model reads."""
    ended: Literal["done", "refused", "failed"]
    """Refused: the call itself was at fault. Failed: the tool was, not the model."""
    seconds: float = 0.0
    """Wall time, waiting included; never shown to the model."""


class Toolbox:
    """The tools of one episode on one workspace."""

    def __init__(
        self,
        tools: Sequence[Tool],
        workspace: Workspace | None = None,
        limits: CallLimits | None = None,
    ) -> None:
        """Put them together.

        Args:
          tools: of different names.
          workspace: where they leave files; None where they leave none.
          limits: of a call.

        Raises:
          ConfigError: two tools have one name.
        """
        self._tools = {tool.spec.name: tool for tool in tools}
        if len(self._tools) < len(tools):
            raise ConfigError(
                "Toolbox: expected tools of different names, got "
                f"{', '.join(tool.spec.name for tool in tools)}: leave one out"
            )
        self._workspace = workspace
        self._limits = limits or CallLimits()

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What a model is told about them, in order."""
        return tuple(tool.spec for tool in self._tools.values())

    @property
    def final_file(self) -> str | None:
        """The text of the file that was written last; None where there is none."""
        return None if self._workspace is None else self._workspace.last_text

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Observation:
        """Carry out one call; errors of every kind are observations."""
        begin = time.monotonic()
        try:
            tool = self._tools.get(name)
            if tool is None:
                raise ToolError(
                    f"there is no tool `{name}`; there are {', '.join(self._tools)}"
                )
            values = tool.spec.read(arguments)
            async with asyncio.timeout(self._limits.wall_s):
                text, ended = await tool.call(values), "done"
        except ToolError as error:
            text, ended = f"error: {error}", "refused"
        except TimeoutError:
            text, ended = _failure(name, "it did not answer in time"), "failed"
        except Exception as error:  # noqa: BLE001 - no tool may end an episode
            _log.warning("the tool %s failed", name, exc_info=True)
            text, ended = _failure(name, type(error).__name__), "failed"
        return Observation(
            tool=name,
            arguments=arguments,
            text=self._cut(text),
            ended=ended,
            seconds=time.monotonic() - begin,
        )

    def _cut(self, text: str) -> str:
        # No tokenizer reads a lone surrogate.
        text = text.encode(errors="replace").decode()
        most = self._limits.output_characters
        if len(text) <= most:
            return text
        return f"{text[:most]}\n… ({len(text) - most} characters are left out)"


def _failure(name: str, what: str) -> str:
    return f"error: {name} failed ({what}); that is not your fault, go on without it"
