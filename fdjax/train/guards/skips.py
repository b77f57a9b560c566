"""Finds the optimizer steps that were skipped, once the host knows, and dumps them."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh

from fdjax.metrics import Event
from fdjax.records import Metrics
from fdjax.sharding import shard_batch
from fdjax.train.guards.diagnosis import Diagnose
from fdjax.train.guards.dump import write_dump
from fdjax.train.guards.guards import Guards
from fdjax.train.guards.watch import Watch
from fdjax.train.state import TrainState

__all__ = ["Skips"]

_log = logging.getLogger(__name__)


class Skips:
    """Holds the batches of the newest iteration until its metrics are computed.

    Nothing waits for it: it looks where the window of metrics has waited already, and
    a step that was taken costs one comparison.
    """

    def __init__(
        self,
        guards: Guards,
        arm: str,
        diagnose: Diagnose | None,
    ) -> None:
        """Of one phase.

        Args:
          guards: how many batches are written, and where.
          arm: the phase.
          diagnose: says where a batch is not finite; all processes call it.
        """
        self._guards = guards
        self._arm = arm
        self._diagnose = diagnose
        self._newest: tuple[int, Sequence[Any], Sequence[Metrics]] | None = None

    def add(
        self, iteration: int, batches: Sequence[Any], metrics: Sequence[Metrics]
    ) -> None:
        """The newest iteration, from 1, its host batches and metrics of its steps."""
        self._newest = (iteration, batches, metrics)

    def look(
        self, watch: Watch, state: TrainState, mesh: Mesh, *, behind: int = 0
    ) -> Watch:
        """Writes the first skipped step of the newest iteration, if there is one.

        Args:
          watch: knows how many were written before.
          state: the newest.
          mesh: over which batches are sharded.
          behind: optimizer steps in `state` that are later than the iteration.

        Returns:
          The watch with one dump more, or as it was.
        """
        newest, self._newest = self._newest, None
        if newest is None or watch.dumps >= self._guards.dumps:
            return watch
        iteration, batches, metrics = newest
        skipped = _first_skipped(metrics)
        if skipped is None:
            return watch
        behind += len(batches) - skipped
        self._write(iteration, skipped, batches[skipped], state, mesh, behind)
        return replace(watch, dumps=watch.dumps + 1)

    def _write(
        self,
        iteration: int,
        update: int,
        batch: Any,
        state: TrainState,
        mesh: Mesh,
        behind: int,
    ) -> None:
        arm, folder = self._arm, self._guards.folder
        name = "/".join(("dumps", arm, str(iteration)))
        try:
            diagnosis = None
            if self._diagnose is not None:
                placed = shard_batch(batch, mesh)
                diagnosis = self._diagnose(state, placed, behind=behind)
            if folder is not None:
                write_dump(
                    folder / name,
                    batch,
                    state,
                    diagnosis,
                    arm=arm,
                    iteration=iteration,
                    update=update,
                    behind=behind,
                )
        except (OSError, jax.errors.JaxRuntimeError) as error:
            # A look at what went wrong must not make it worse.
            _log.warning("The batch of a skipped step could not be written: %s", error)
            return
        self._guards.note(
            Event(
                arm=arm,
                step=iteration,
                guard="non_finite",
                metric="train/skipped",
                value=1.0,
                bound=0.0,
                action="dump",
                file=name,
            )
        )
        _log.warning(
            "Iteration %d of %s: a step was skipped because a value was not finite; "
            "its batch is in %s.",
            *(iteration, arm, name),
        )


def _first_skipped(steps: Sequence[Metrics]) -> int | None:
    for index, metrics in enumerate(steps):
        skipped = metrics.get("train/skipped")
        if skipped is not None and float(jax.device_get(skipped.total)) > 0:
            return index
    return None
