"""Parts of a position in the data that are known only when somebody asks."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

__all__ = ["Deferred", "settled"]


@runtime_checkable
class Deferred(Protocol):
    """Such a part: a rollout that judges are still at, say."""

    def settle(self) -> Any:
        """What is known of it now, as JSON holds it; a collective."""
        ...


def settled(position: Any) -> Any:
    """A position as JSON holds it."""
    if isinstance(position, Deferred):
        return position.settle()
    if isinstance(position, Mapping):
        return {name: settled(part) for name, part in position.items()}
    if isinstance(position, list | tuple):
        return [settled(part) for part in position]
    return position
