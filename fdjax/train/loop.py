"""The training loop: data, optimizer steps, log, checkpoint, resume."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from fdjax.checkpoint import CheckpointStore
from fdjax.metrics import MetricsWriter, SampleWriter, StageTimer
from fdjax.records import Metrics
from fdjax.sharding import batch_sharding
from fdjax.train.interrupt import StoppedError, StopRequest
from fdjax.train.resume import ResumeFrom, restore
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


def train(
    phase: Phase,
    state: TrainState,
    *,
    mesh: Mesh,
    directory: Path,
    writer: MetricsWriter,
    samples: SampleWriter,
    stop: StopRequest,
    run: str | None = None,
    resume: ResumeFrom = "newest",
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
      run: identity of the run, kept in its checkpoints; those of another are refused.
      resume: the newest checkpoint, which must be whole; the newest that is "whole";
        or that of a step. Where training goes on from an earlier one, later ones are
        set aside and their rows dropped.
      on_data: called with (iteration, state, data) before the optimizer steps.
      on_step: called with (iterations done, latest metrics).

    Returns:
      The state after the last iteration.

    Raises:
      StoppedError: `stop` was requested; the state was saved first.
      CheckpointError: the checkpoint is of another run, of other data, or of another
        state; as `DamagedCheckpointError`, it cannot be read.
    """
    layout = batch_sharding(mesh)
    origin = {"run": run, "phase": phase.name}
    with CheckpointStore(directory, keep=phase.keep_checkpoints) as store:
        done, state, _ = restore(
            store, state, phase.source, origin, steps=phase.steps, resume=resume
        )
        if done < phase.steps:
            store.set_aside_after(done)
            writer.truncate_after(phase.name, done)
            samples.truncate_after(phase.name, done)
        # The last iteration has a row of its own.
        cut = done == phase.steps and done % phase.log_every > 0
        writer.mark_gap(phase.name, done, done // phase.log_every + cut)

        def save() -> None:
            store.save(done, state, origin | {"source": phase.source.get_state()})

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
                    state, metrics = phase.train_step(
                        state, jax.device_put(batch, layout)
                    )
                    device_metrics.append(metrics)
            done += 1
            window += [(data.metrics, metrics) for metrics in device_metrics]
            if done % phase.log_every == 0 or done == phase.steps:
                with timer.stage("update"):
                    latest = _summary(window)
                latest |= timer.take()
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
        for name, mean in (host | jax.device_get(device)).items():
            total[name] = total[name] + mean if name in total else mean
    return {name: mean.value() for name, mean in total.items()}
