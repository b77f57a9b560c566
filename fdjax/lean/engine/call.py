"""The items of one call of the verifier: equal ones are decided together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fdjax.lean.facts.backend import CheckRequest
from fdjax.lean.facts.verdict import Verdict

__all__ = ["Call"]


@dataclass(kw_only=True)
class Call:
    """Items in the order of the call, and the verdicts so far."""

    requests: Sequence[CheckRequest]
    """One for each item."""
    keys: Sequence[bytes]
    """What decides each item's verdict, as the cache knows it."""
    progress: Callable[[int], None]
    """Called with the number of decided items."""
    decided: Callable[[int, Verdict], None]
    """Called with the index and the verdict of each item."""
    _places: dict[bytes, list[int]] = field(default_factory=dict)
    _verdicts: dict[bytes, Verdict] = field(default_factory=dict)
    _finished: int = 0

    def __post_init__(self) -> None:
        for index, key in enumerate(self.keys):
            self._places.setdefault(key, []).append(index)

    @property
    def open(self) -> dict[bytes, CheckRequest]:
        """What is not decided yet, each once."""
        return {
            key: self.requests[places[0]]
            for key, places in self._places.items()
            if key not in self._verdicts
        }

    def decide(self, verdicts: Mapping[bytes, Verdict]) -> int:
        """Take verdicts and tell; returns the number of items that they decide."""
        self._verdicts |= verdicts
        items = [(i, verdicts[key]) for key in verdicts for i in self._places[key]]
        for index, verdict in items:
            self.decided(index, verdict)
        self._finished += len(items)
        if items:
            self.progress(self._finished)
        return len(items)

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts of all items; each is decided."""
        return [self._verdicts[key] for key in self.keys]
