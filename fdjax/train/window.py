"""Metrics of the iterations since the last row, as sums that a checkpoint can hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from fdjax.errors import FdjaxError
from fdjax.records import Mean, Metrics, union

__all__ = ["IdleError", "Window"]

_REMEDIES = {
    "train/skipped": (
        "loss, gradient or parameters were not finite: look for NaN in the rewards and "
        "batches of these iterations, or lower the learning rate"
    ),
    "train/empty": (
        "nothing was scored: see whether the verifier answers (verdict/crashed), the "
        "statements elaborate (rollout/broken_statements) and there is feedback "
        "(feedback/available)"
    ),
}
"""What to look at when steps are not taken, by the metric that counts them."""


class IdleError(FdjaxError, RuntimeError):
    """Too many iterations in a row took no optimizer step; the state is saved."""


@dataclass(frozen=True)
class Window:
    """Sums of metrics over iterations, and how long no step was taken.

    Adding an iteration waits for the one before, not for its own steps: the device has
    work while the host prepares more. The sums are Python floats, added in the order of
    the steps: through JSON and back they give the same means, bit for bit.
    """

    sums: Metrics = field(default_factory=dict)
    newest: tuple[Metrics, Sequence[Metrics]] | None = None
    """Metrics of the host and of each optimizer step that are not in the sums yet."""
    idle: int = 0
    """Iterations in a row, of those in the sums, that took no step."""
    missed: Mapping[str, float] = field(default_factory=dict)
    """Steps not taken in these iterations, by the metric that counts them."""

    def add(self, host: Metrics, steps: Sequence[Metrics]) -> "Window":
        """With one iteration more.

        Args:
          host: metrics known before the steps; counted once for each of them.
          steps: metrics of each optimizer step, on the device.
        """
        return replace(self.settled(), newest=(host, steps))

    @property
    def begun(self) -> bool:
        """Whether an iteration is in it whose row is not written."""
        return bool(self.sums) or self.newest is not None

    def settled(self) -> "Window":
        """With everything in the sums; waits for the device."""
        if self.newest is None:
            return self
        host, steps = self.newest
        steps = jax.device_get(steps)
        sums = dict(self.sums)
        for step in steps:
            for name, mean in union(host, step).items():
                one = Mean(float(mean.total), float(mean.weight))
                sums[name] = sums[name] + one if name in sums else one
        missed = {
            name: sum((float(step[name].total) for step in steps if name in step), 0.0)
            for name in _REMEDIES
        }
        if sum(missed.values()) < len(steps):
            return Window(sums)
        missed = {name: missed[name] + self.missed.get(name, 0) for name in missed}
        return Window(sums, idle=self.idle + 1, missed=missed)

    def emptied(self) -> "Window":
        """After its row was written."""
        return replace(self.settled(), sums={})

    def means(self) -> dict[str, float]:
        """The row of the iterations in it; waits for the device."""
        return {name: mean.value() for name, mean in self.settled().sums.items()}

    def get_state(self) -> dict[str, Any]:
        """The sums for a checkpoint's JSON; waits for the device."""
        return {name: list(mean) for name, mean in self.settled().sums.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Window":
        """The window that `get_state` told of; what was idle before is forgiven."""
        return cls({name: Mean(*sums) for name, sums in state.items()})

    def check(self, max_idle: int) -> None:
        """Raises `IdleError` after `max_idle` iterations without a step."""
        if self.idle < max_idle:
            return
        causes = [
            f"in {count:.0f} steps {_REMEDIES[name]} ({name})"
            for name, count in self.missed.items()
            if count
        ]
        raise IdleError(
            f"Expected an optimizer step, got none in {self.idle} iterations in a row: "
            + "; ".join(causes or ["there were no batches"])
            + ". The state before them is kept; the same run can resume from it."
        )
