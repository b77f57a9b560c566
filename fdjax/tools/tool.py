"""What a tool is, and arguments that say what is wrong with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from fdjax.records import is_unicode

__all__ = ["Parameter", "Tool", "ToolError", "ToolSpec"]

_TYPES = {"string": str, "integer": int}


class ToolError(Exception):
    """What is wrong with a call, in words for the model; an observation, no failure."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One argument of a tool."""

    name: str
    type: Literal["string", "integer"]
    description: str
    """What it is, for the model."""
    default: str | int | None = None
    """Taken where the call leaves it out; None makes it required."""
    least: int | None = None
    """Of an integer."""
    most: int | None = None
    """Of an integer; of a text the number of characters."""

    @property
    def schema(self) -> dict[str, Any]:
        """It as a property of a JSON schema."""
        bounds = ("minimum", "maximum") if self.type == "integer" else ("", "maxLength")
        known = zip(bounds, (self.least, self.most), strict=True)
        return (
            {"type": self.type, "description": self.description}
            | {name: bound for name, bound in known if name and bound is not None}
            | ({} if self.default is None else {"default": self.default})
        )

    def read(self, value: Any) -> str | int:
        """The value of a call.

        Raises:
          ToolError: it is of another type or out of range.
        """
        if not isinstance(value, _TYPES[self.type]) or isinstance(value, bool):
            given = type(value).__name__
            raise ToolError(f"`{self.name}` must be of type {self.type}, not {given}")
        if isinstance(value, str):
            if self.most is not None and len(value) > self.most:
                raise ToolError(
                    f"`{self.name}` has {len(value)} characters; {self.most} are the "
                    "most"
                )
            if "\0" in value or not is_unicode(value):
                raise ToolError(f"`{self.name}` is not valid Unicode text")
        elif (self.least is not None and value < self.least) or (
            self.most is not None and value > self.most
        ):
            raise ToolError(
                f"`{self.name}` must be from {self.least} to {self.most}, not {value}"
            )
        return value


@dataclass(frozen=True, kw_only=True)
class ToolSpec:
    """What a model is told about a tool."""

    name: str
    description: str
    parameters: Sequence[Parameter] = ()

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments."""
        return {
            "type": "object",
            "properties": {each.name: each.schema for each in self.parameters},
            "required": [each.name for each in self.parameters if each.default is None],
            "additionalProperties": False,
        }

    def read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call, checked, with defaults for those left out.

        Raises:
          ToolError: one is missing, unknown, of another type or out of range.
        """
        known = {each.name for each in self.parameters}
        if unknown := sorted(set(arguments) - known):
            raise ToolError(
                f"{self.name} has no argument `{unknown[0]}`; it takes "
                f"{', '.join(sorted(known)) or 'none'}"
            )
        values: dict[str, Any] = {}
        for parameter in self.parameters:
            value = arguments.get(parameter.name, parameter.default)
            if value is None:
                raise ToolError(f"{self.name} needs the argument `{parameter.name}`")
            values[parameter.name] = parameter.read(value)
        return values


@runtime_checkable
class Tool(Protocol):
    """Something that a model may call in an episode."""

    @property
    def spec(self) -> ToolSpec:
        """Its name, and what it takes."""
        ...

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """What the model reads next.

        Args:
          arguments: as `spec.read` returned them.

        Raises:
          ToolError: the call cannot be carried out, by the model's own fault.
        """
        ...
