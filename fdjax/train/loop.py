"""The training loop: data, optimizer steps, log, checkpoint, resume."""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import jax
from jax.sharding import Mesh

from fdjax.checkpoint import CheckpointStore, Exports
from fdjax.errors import CheckpointError, ConfigError, StoreError
from fdjax.metrics import Event, MetricsWriter, SampleWriter, StageTimer
from fdjax.objects import Place
from fdjax.ranges import Whole, require_fields
from fdjax.records import Metrics, union
from fdjax.sharding import on_first, on_first_slowly, shard_batch
from fdjax.train.checkpoints import CheckpointClock, CheckpointsConfig
from fdjax.train.deferred import settled
from fdjax.train.guards.diagnosis import Diagnose
from fdjax.train.guards.guards import UNGUARDED, AlarmError, Guards
from fdjax.train.guards.skips import Skips
from fdjax.train.guards.watch import Finding, Watch
from fdjax.train.interrupt import StoppedError, StopRequest
from fdjax.train.plateau import Plateau
from fdjax.train.profile import NO_PROFILE, Profile
from fdjax.train.resume import base_fingerprint, restore
from fdjax.train.sources import Source, StepData
from fdjax.train.state import TrainState, check_finite
from fdjax.train.window import Window

__all__ = ["Phase", "train"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One arm's training: what to do at each iteration, and when to save."""

    name: str
    """Arm, as it is called in logs and folders."""
    steps: int
    """Iterations, at most; each takes one or more optimizer steps."""
    source: Source
    """Supplies the batches."""
    train_step: Callable[[TrainState, Any], tuple[TrainState, Metrics]]
    """Made by `make_train_step`; donates its state."""
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    """When the state is saved, and what stays."""
    log_every: int = 1
    """Iterations whose metrics are averaged into one row."""
    until: Plateau | None = None
    """Ends the phase earlier, after a row of metrics that shows it."""
    max_idle: int = 5
    """Iterations in a row without an optimizer step taken after which the run stops,
    because values are not finite or nothing is scored."""
    diagnose: Diagnose | None = None
    """Made by `make_diagnosis`; says where a skipped step's batch is not finite."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            steps=Whole(1),
            log_every=Whole(1),
            max_idle=Whole(1),
        )


def train(
    phase: Phase,
    state: TrainState,
    *,
    mesh: Mesh,
    directory: Place,
    writer: MetricsWriter,
    samples: SampleWriter,
    stop: StopRequest,
    guards: Guards = UNGUARDED,
    profile: Profile = NO_PROFILE,
    run: str | None = None,
    resume: int | None = None,
    exports: Exports | None = None,
    keep: Callable[[bool], bool] = lambda must: True,
    on_data: Callable[[int, TrainState, StepData], None] = lambda *_: None,
    on_step: Callable[[int, dict[str, float]], None] = lambda *_: None,
) -> TrainState:
    """Runs a phase to its end, continuing from its newest checkpoint if it has one.

    Everything that decides the next step is in the checkpoint: state, PRNG key,
    position in the data, the sums of a row begun and what `until` has seen. A run that
    was killed and resumed takes the same steps and writes the same rows. On several
    processes all decide by the rows of the first: when a phase ends, what alarms.

    Before any error leaves, Ctrl-C included, the last whole iteration is saved; the one
    that failed is done anew on resume. Where its optimizer steps had begun, their state
    is of no iteration and the one before is gone (it is donated): the last checkpoint
    stays the newest. A note on the error says which.

    Args:
      phase: what to do.
      state: where to begin; donated.
      mesh: over which batches are sharded.
      directory: of this phase's checkpoints.
      writer: receives one row of metrics for each `log_every` iterations.
      samples: rows of this phase later than its checkpoint are dropped; `on_data` may
        write them anew.
      stop: asked between iterations, and by what the source waits for.
      guards: alarms on the rows, and where they and skipped batches are written.
      profile: iterations that leave a trace.
      run: identity of the run, kept in its checkpoints; those of another are refused.
      resume: step of the checkpoint to go on from; by default that of the newest that
        is not damaged. Later ones are set aside and their rows dropped.
      exports: makes folders `<phase>-<iteration>` where `phase.checkpoints` asks for
        exports.
      keep: called before each checkpoint, with whether it must be saved now; False
        leaves it out, for rows that it relies on are not kept yet.
      on_data: called with (iteration, state, data) before the optimizer steps.
      on_step: called with (iterations done, latest metrics).

    Returns:
      The state after the last iteration.

    Raises:
      StoppedError: `stop` was requested; the state was saved first.
      IdleError: `max_idle` iterations in a row took no optimizer step.
      AlarmError: one of the guards ends the run.
      ConfigError: the rows have no metric of the name in `until`, or of that by which
        checkpoints are kept.
      CheckpointError: the parameters to begin from are not finite; or the checkpoint is
        of another run, of other data or of another state, or cannot be written; as
        `DamagedCheckpointError`, it cannot be read.
      StoreError: the object store that `directory` is in refuses, or does not answer.
    """
    origin = {"run": run, "phase": phase.name}
    base = base_fingerprint(state)
    with (
        CheckpointStore(directory, phase.checkpoints.keep) as store,
        exports or nullcontext(),
    ):
        done, state, host = restore(
            store,
            state,
            phase.source,
            origin,
            base=base,
            steps=phase.steps,
            resume=resume,
        )
        window = Window.from_state(host.get("window", {}))
        check_finite(state.params)
        if done < phase.steps:
            store.set_aside_after(done)
            writer.truncate_after(phase.name, done)
            samples.truncate_after(phase.name, done)
            guards.truncate_after(phase.name, done)
        # The last iteration has a row of its own.
        cut = done == phase.steps and done % phase.log_every > 0
        writer.mark_gap(phase.name, done, done // phase.log_every + cut)

        watched = tuple(host.get("watched", ()))
        watch = guards.watch(host.get("guards", {}))
        at = _Boundary(done, state, _position(phase.source), window, watched, watch)
        if base is not None:
            origin["base"] = base
        under_way = _Run(phase, store, writer, guards, at, origin, exports, keep)
        try:
            on_step(done, under_way.latest)
            under_way.export()
            while not under_way.over:
                stop.check()
                traced = profile.of(
                    phase.name, under_way.at.done + 1, lambda: under_way.at.state
                )
                with traced:
                    under_way.iterate(mesh, on_data)
                on_step(under_way.at.done, under_way.latest)
            under_way.close()
        except StoppedError:
            # All processes are here, before an optimizer step.
            under_way.save()
            store.wait()
            raise StoppedError(
                f"Stopped {phase.name} after {under_way.at.done} iterations.",
                stop.signal,
            ) from None
        except BaseException as error:
            # On several processes one that failed would wait for the others to save.
            alone = jax.process_count() == 1
            new = under_way.at.done > done
            unsaved = isinstance(error, CheckpointError | StoreError)
            if alone and new and not unsaved:
                error.add_note(under_way.rescue())
            raise
    return under_way.at.state


@dataclass
class _Boundary:
    """A run between two iterations: what a checkpoint says."""

    done: int
    """Iterations."""
    state: TrainState
    position: dict[str, Any]
    """Of the source, before the next iteration's data."""
    window: Window
    """Metrics since the last row."""
    watched: tuple[float, ...] = ()
    """Values of the metric that `until` looks at, one a row."""
    watch: Watch = field(default_factory=Watch)
    """What the alarms have seen of the rows."""


def _position(source: Source) -> dict[str, Any]:
    """A copy, because checkpoints are written while the source goes on."""
    return copy.deepcopy(source.get_state())


class _Run:
    """A phase under way: its last whole iteration, and how that is written down."""

    def __init__(
        self,
        phase: Phase,
        store: CheckpointStore,
        writer: MetricsWriter,
        guards: Guards,
        at: _Boundary,
        origin: dict[str, Any],
        exports: Exports | None,
        keep: Callable[[bool], bool],
    ) -> None:
        self.at = at
        self._keep = keep
        self._left_out = 0
        self._exports = exports
        self._origin = origin
        self.latest: dict[str, float] = {}
        self._phase = phase
        self._store = store
        self._writer = writer
        self._guards = guards
        self._skips = Skips(guards, phase.name, phase.diagnose)
        self._timer = StageTimer()
        self._clock = CheckpointClock(phase.checkpoints)
        self.over = self._is_over()

    def iterate(
        self, mesh: Mesh, on_data: Callable[[int, TrainState, StepData], None]
    ) -> None:
        """One iteration, with its row and checkpoint if they are due."""
        phase, at = self._phase, self.at
        data = phase.source.next(at.state, self._timer)
        on_data(at.done, at.state, data)
        state, metrics = at.state, []
        with self._timer.stage("update"):
            for batch in data.batches:
                state, of_step = phase.train_step(state, shard_batch(batch, mesh))
                metrics.append(of_step)
            window = at.window.add(data.metrics, metrics)
        self.at = replace(
            at,
            done=at.done + 1,
            state=state,
            position=_position(phase.source),
            window=window,
        )
        # The window has waited for the iteration before, not for this one.
        self._look(mesh, behind=len(metrics))
        self._skips.add(self.at.done, data.batches, metrics)
        alarm: AlarmError | None = None
        if self._due(phase.log_every):
            found = self._write_row()
            self._look(mesh)
            alarm = self._guards.tell(phase.name, self.at.done, found)
            self.over = self._is_over()
        must = self.over or bool(alarm) or self.at.window.idle >= phase.max_idle
        if must or self._clock.due(self.at.done):
            self.save(must=must)
        self._check_idle()
        if alarm:
            raise alarm

    def _look(self, mesh: Mesh, *, behind: int = 0) -> None:
        """Writes the batch of a step that is known to be skipped by now."""
        at = self.at
        at.watch = self._skips.look(at.watch, at.state, mesh, behind=behind)

    def _check_idle(self) -> None:
        """Raises `IdleError` after too many iterations without a step."""
        window, most = self.at.window, self._phase.max_idle
        if window.idle >= most:
            self._guards.note(
                Event(
                    arm=self._phase.name,
                    step=self.at.done,
                    guard="idle",
                    metric=max(window.missed, key=window.missed.__getitem__),
                    value=window.idle,
                    bound=most - 1,
                    action="stop",
                )
            )
        window.check(most)

    def save(self, *, must: bool = True) -> None:
        """Begins to write a checkpoint, unless it can wait and rows are not kept."""
        at = self.at
        if not self._keep(must):
            self._leave_out()
            return
        host: dict[str, Any] = {
            "source": settled(at.position),
            "window": at.window.get_state(),
            "guards": at.watch.get_state(),
        }
        if self._phase.until is not None:
            host["watched"] = list(at.watched)
        saved = at.state._replace(base=None)
        self._store.save(at.done, saved, self._origin | host, values=self._values())
        self._clock.saved()
        self.export()

    def _leave_out(self) -> None:
        """Notes that there is no checkpoint where one was due."""
        self._left_out += 1
        self._guards.note(
            Event(
                arm=self._phase.name,
                step=self.at.done,
                guard="store",
                metric="checkpoint/left_out",
                value=self._left_out,
                bound=0,
                action="warn",
            )
        )

    def export(self) -> None:
        """Begins to export the newest checkpoint, if that is due and not done."""
        done, exports = self.at.done, self._exports
        if exports is not None and self._phase.checkpoints.exports(done):
            exports.begin(self._store, done, f"{self._phase.name}-{done}")

    def close(self) -> None:
        """Waits for all that is being written; deletes checkpoints that do not stay."""
        if self._exports is not None:
            on_first_slowly(self._exports.wait)
        self._store.delete_others()

    def rescue(self) -> str:
        """Saves the last whole iteration after an error; says how that went."""
        done = self.at.done
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(self.at.state)):
            return (
                f"Iteration {done + 1} failed between its optimizer steps, where there "
                "is no whole state to save; resume goes on from the last checkpoint."
            )
        try:
            if self._due(self._phase.log_every) and self.at.window.begun:
                # The error may have come just after the row was written.
                self._writer.truncate_after(self._phase.name, done - 1)
                self._write_row()
            self.save()
            self._store.wait()
        except Exception as failure:  # noqa: BLE001 - the first error is raised
            return f"The state after {done} iterations could not be saved: {failure}"
        return f"The state after {done} iterations is saved; resume goes on from there."

    def _due(self, every: int) -> bool:
        return self.at.done % every == 0 or self.at.done == self._phase.steps

    def _write_row(self) -> list[Finding]:
        """Ends the window with its row; returns the alarms that this raises."""
        with self._timer.stage("update"):
            window = self.at.window.settled()
        row = union(window.means(), self._timer.take())
        if self._exports is not None and self._exports.missing:
            row["export/missing"] = float(self._exports.missing)
        if self._left_out:
            row["checkpoint/left_out"] = float(self._left_out)
        self.latest = _of_first(row)
        self._writer.write(self._phase.name, self.at.done, self.latest)
        watch, found = self.at.watch.after(self.latest)
        self.at = replace(self.at, window=window.emptied(), watch=watch)
        keep = self._phase.checkpoints.keep
        if keep.best:
            self._logged(keep.metric, "checkpoints.keep")
        if self._phase.until is not None:
            value = self._logged(self._phase.until.metric, "until")
            # A row may have nothing to average, such as no attempt with a reward.
            if not math.isnan(value):
                self.at.watched += (value,)
        return found

    def _values(self) -> dict[str, float]:
        """By which the checkpoint is ranked; nothing before the first row."""
        keep = self._phase.checkpoints.keep
        if not keep.best:
            return {}
        value = self.latest.get(keep.metric, math.nan)
        return {} if math.isnan(value) else {keep.metric: value}

    def _logged(self, metric: str, setting: str) -> float:
        """A metric of the newest row."""
        if metric not in self.latest:
            raise ConfigError(
                f"expected {self._phase.name}.{setting} of a metric in its rows, got "
                f"{metric!r}; there are {', '.join(sorted(self.latest))}"
            )
        return self.latest[metric]

    def _is_over(self) -> bool:
        """Whether the row just written is the last one."""
        until = self._phase.until
        return self.at.done >= self._phase.steps or (
            until is not None and until.reached(self.at.watched)
        )


def _of_first(row: dict[str, float]) -> dict[str, float]:
    """The row of the first process: seconds and queues are each process's own."""
    # As text, for JSON has no infinities.
    told = on_first(lambda: {name: repr(float(value)) for name, value in row.items()})
    return {name: float(value) for name, value in told.items()}
