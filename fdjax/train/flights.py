"""Rollouts that were sampled and not trained on yet, also in a checkpoint."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

from fdjax.data.pipeline import fingerprint
from fdjax.errors import CheckpointError
from fdjax.records import Problem
from fdjax.rollout import Pending, Rollout, Trajectory
from fdjax.rollout.codec import decode_group, encode_group

__all__ = ["Deferred", "Flight", "settled"]


@runtime_checkable
class Deferred(Protocol):
    """A part of a source's position that is known only once something has ended."""

    def settle(self) -> Any:
        """The part, as JSON holds it; waits for it."""
        ...


def settled(position: Any) -> Any:
    """A position whose deferred parts are known; waits for them."""
    if isinstance(position, Deferred):
        return position.settle()
    if isinstance(position, Mapping):
        return {name: settled(part) for name, part in position.items()}
    if isinstance(position, list | tuple):
        return [settled(part) for part in position]
    return position


class Flight:
    """A rollout on its way from the sampler to the optimizer.

    A checkpoint holds all of it: the weights that sampled it are gone by then.
    """

    def __init__(self, result: Callable[[], Rollout]) -> None:
        self._result = result

    @classmethod
    def of(cls, pending: Pending) -> Self:
        """That of a rollout which judges and writers may still have."""
        return cls(pending.result)

    def result(self) -> Rollout:
        """The rollout; waits for it."""
        return self._result()

    def settle(self) -> dict[str, Any]:
        """See `Deferred`."""
        groups = self.result().groups
        return {
            "problems": [fingerprint([group[0].problem]) for group in groups],
            "groups": [base64.b64encode(encode_group(g)).decode() for g in groups],
        }

    @classmethod
    def restored(
        cls,
        saved: Mapping[str, Any],
        problems: Mapping[str, Problem],
        rollout: Callable[[Sequence[Sequence[Trajectory]]], Rollout],
    ) -> Self:
        """The one that `settle` told of.

        Args:
          saved: what it gave.
          problems: by fingerprint.
          rollout: makes one of its groups.

        Raises:
          CheckpointError: it is one of other problems.
        """
        unknown = [one for one in saved["problems"] if one not in problems]
        if unknown:
            raise CheckpointError(
                "Expected rollouts of the problems that are trained on, got "
                f"{len(unknown)} of other problems in the checkpoint: give the same "
                "problems, or start a new run."
            )
        found = rollout(
            [
                decode_group(base64.b64decode(group), problems[one])
                for one, group in zip(saved["problems"], saved["groups"], strict=True)
            ]
        )
        return cls(lambda: found)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: what it becomes is decided."""
        return self
