"""The training loop: data, optimizer steps, log, checkpoint, resume."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from fdjax.checkpoint import CheckpointStore
from fdjax.metrics import MetricsWriter, SampleWriter, StageTimer
from fdjax.ranges import Whole, require_fields
from fdjax.records import Metrics, union
from fdjax.sharding import shard_batch
from fdjax.train.interrupt import StoppedError, StopRequest
from fdjax.train.sources import Source, StepData
from fdjax.train.state import TrainState

__all__ = ["Phase", "train"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One arm's training: what to do at each iteration, and how often to save."""

    name: str
    """Arm, as it is called in logs and folders."""
    steps: int
    """Iterations; each takes one or more optimizer steps."""
    source: Source
    """Supplies the batches."""
    train_step: Callable[[TrainState, Any], tuple[TrainState, Metrics]]
    """Made by `make_train_step`; donates its state."""
    checkpoint_every: int
    """Iterations between checkpoints; the last one is always saved."""
    log_every: int = 1
    """Iterations whose metrics are averaged into one row."""
    keep_checkpoints: int | None = 2
    """How many of the newest checkpoints stay; all of them with None."""

    def __post_init__(self) -> None:
        require_fields(
            self, steps=Whole(1), checkpoint_every=Whole(1), log_every=Whole(1)
        )
        if self.keep_checkpoints is not None:
            require_fields(self, keep_checkpoints=Whole(1))


def train(
    phase: Phase,
    state: TrainState,
    *,
    mesh: Mesh,
    directory: Path,
    writer: MetricsWriter,
    samples: SampleWriter,
    stop: StopRequest,
    on_data: Callable[[int, TrainState, StepData], None] = lambda *_: None,
    on_step: Callable[[int, dict[str, float]], None] = lambda *_: None,
) -> TrainState:
    """Runs a phase to its end, continuing from its newest checkpoint if it has one.

    Everything that decides the next step is in the checkpoint: state, PRNG key and
    position in the data. A run that was killed and resumed takes the same steps.

    Args:
      phase: what to do.
      state: where to begin; donated.
      mesh: over which batches are sharded.
      directory: of this phase's checkpoints.
      writer: receives one row of metrics for each `log_every` iterations.
      samples: rows of this phase later than its checkpoint are dropped; `on_data` may
        write them anew.
      stop: asked between iterations.
      on_data: called with (iteration, state, data) before the optimizer steps.
      on_step: called with (iterations done, latest metrics).

    Returns:
      The state after the last iteration.

    Raises:
      StoppedError: `stop` was requested; the state was saved first.
    """
    with CheckpointStore(directory, keep=phase.keep_checkpoints) as store:
        # A later stage may have gone on beyond this phase in the same folder.
        done = max((step for step in store.steps if step <= phase.steps), default=0)
        if done:
            state, host = store.restore(state, done)
            phase.source.set_state(host["source"])
        if done < phase.steps:
            writer.truncate_after(phase.name, done)
            samples.truncate_after(phase.name, done)

        def save() -> None:
            store.save(done, state, {"source": phase.source.get_state()})

        window: list[tuple[Metrics, Metrics]] = []
        timer, latest = StageTimer(), {}
        on_step(done, latest)
        while done < phase.steps:
            if stop.requested:
                save()
                store.wait()
                raise StoppedError(f"Stopped {phase.name} after {done} iterations.")
            data = phase.source.next(state, timer)
            on_data(done, state, data)
            with timer.stage("update"):
                device_metrics = []
                for batch in data.batches:
                    state, metrics = phase.train_step(state, shard_batch(batch, mesh))
                    device_metrics.append(metrics)
            done += 1
            window += [(data.metrics, metrics) for metrics in device_metrics]
            if done % phase.log_every == 0 or done == phase.steps:
                with timer.stage("update"):
                    latest = _summary(window)
                latest = union(latest, timer.take())
                writer.write(phase.name, done, latest)
                window = []
            if done % phase.checkpoint_every == 0 or done == phase.steps:
                save()
            on_step(done, latest)
        store.wait()
    return state


def _summary(window: list[tuple[Metrics, Metrics]]) -> dict[str, float]:
    """Weighted means over a window of optimizer steps."""
    total: Metrics = {}
    for host, device in window:
        for name, mean in union(host, jax.device_get(device)).items():
            total[name] = total[name] + mean if name in total else mean
    return {name: mean.value() for name, mean in total.items()}
