"""What every stage of a run shares: settings, folder, screen, and the clock."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import jax
from jax.sharding import Mesh
from rich.markup import escape

from fdjax.checkpoint import checkpoint_steps
from fdjax.data.pipeline import fingerprint
from fdjax.metrics import EventWriter, MetricsWriter, SampleWriter
from fdjax.metrics.trackers import TrackersConfig, Tracking
from fdjax.rollout import EventLoop, Journal
from fdjax.run.changes import ResumeRules
from fdjax.run.console import Display
from fdjax.run.folder import Resume, Run, begun_phases, open_run, to_json
from fdjax.sharding import on_first
from fdjax.train import StoppedError, StopRequest, stop_on_signal

__all__ = ["RunContext", "run_folder"]


_JOURNAL = "journal"
"""Folder in that of a run."""


class RunSettings(Protocol):
    """What the settings of any run have."""

    @property
    def name(self) -> str:
        """Folder of the run below `runs`."""
        ...

    @property
    def runs(self) -> Path:
        """Where runs are kept."""
        ...

    @property
    def resume(self) -> Resume:
        """Whether to continue one."""
        ...

    @property
    def seed(self) -> int:
        """Of the run's PRNG keys."""
        ...


Config = TypeVar("Config", bound=RunSettings)


@dataclass(frozen=True, kw_only=True)
class RunContext(Generic[Config]):
    """One run on its way."""

    config: Config
    folder: Path
    run: str
    """Identity of the run, which its checkpoints and results carry."""
    mesh: Mesh
    display: Display
    writer: MetricsWriter
    samples: SampleWriter
    events: EventWriter
    """What guards say."""
    stop: StopRequest
    journal: Journal
    """Keeps what judge and writer say for a run that is killed."""
    loop: EventLoop
    """Where judge and writer run."""
    resources: ExitStack
    """What must be closed when the run ends: verifiers, clients of an API."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by name of what it went to."""

    def key(self, purpose: int) -> jax.Array:
        """The PRNG key of one purpose: initialisation, training, evaluation, ..."""
        return jax.random.fold_in(jax.random.key(self.config.seed), purpose)

    def own_file(self, name: str) -> Path | None:
        """A file of the run, for the process that writes it; None on the others."""
        return _own_file(self.folder, name)

    def saved(self, phase: str) -> None:
        """Drops from the journal what the newest checkpoint of a phase has passed."""
        steps = checkpoint_steps(self.folder / "checkpoints" / phase)
        self.journal.passed(phase, max(steps, default=0))

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the wall time of the block to `seconds[name]`."""
        start = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """A progress bar whose every update is a point where the run may stop."""
        with self.display.task(title, total) as bar:

            def update(done: int, note: str = "") -> None:
                self.stop.check()
                bar(done, note)

            yield update


@contextmanager
def run_folder(
    config: Config,
    rules: ResumeRules,
    display: Display,
    mesh: Mesh,
    trackers: TrackersConfig | None = None,
) -> Iterator[RunContext[Config]]:
    """A run's folder, open and locked, with all that is written into it.

    Of a run that fails before it has trained anything, nothing stays.

    Args:
      config: its settings.
      rules: which of them a resumed run may change.
      display: what a person sees.
      mesh: of the run's devices.
      trackers: where metrics go beside metrics.jsonl.

    Raises:
      ConfigError: the folder cannot be had (`open_run`).
    """
    folder = config.runs / config.name
    resumes = config.resume == "newest" or (
        config.resume == "auto" and on_first((folder / "config.json").exists)
    )
    with _opened(folder, config, rules, resume=resumes) as opened:
        for note in opened.notes:
            display.say(f"[yellow]Since the run began:[/] {escape(note)}")
        try:
            decided = fingerprint([rules.deciding(to_json(config))])
            told = trackers or TrackersConfig()
            with _writers(config, opened, display, mesh, decided, told) as context:
                yield context
        except StoppedError:
            raise
        except Exception as error:
            # Feedback may have been paid for before anything was trained.
            kept = begun_phases(folder, rules) or (folder / _JOURNAL).exists()
            if not resumes and kept:
                error.add_note(
                    "What was done is kept: the corrected command goes on with "
                    "--resume."
                )
            elif not resumes and jax.process_index() == 0:
                # Nothing was trained: the corrected command must find its place free.
                shutil.rmtree(folder, ignore_errors=True)
            raise


@contextmanager
def _opened(
    folder: Path, config: RunSettings, rules: ResumeRules, *, resume: bool
) -> Iterator[Run]:
    """The folder, which the first process opens and locks for all."""
    with ExitStack() as stack:

        def opened() -> dict[str, Any]:
            run = stack.enter_context(open_run(folder, config, rules, resume=resume))
            return {"id": run.id, "notes": run.notes}

        said = on_first(opened)
        yield Run(folder=folder, id=said["id"], notes=tuple(said["notes"]))


def _own_file(folder: Path, name: str) -> Path | None:
    return folder / name if jax.process_index() == 0 else None


def _opened_trackers(trackers: TrackersConfig, run: Run) -> Tracking:
    """The first process tells them, as it writes the file."""
    if jax.process_index() > 0:
        return Tracking()
    return trackers.open(run.folder, run=run.id)


@contextlib.contextmanager
def _writers(
    config: Config,
    opened: Run,
    display: Display,
    mesh: Mesh,
    decided: str,
    trackers: TrackersConfig,
) -> Iterator[RunContext[Config]]:
    journal = Journal(
        opened.folder / _JOURNAL, settings=decided, part=jax.process_index()
    )
    with (
        stop_on_signal() as stop,
        contextlib.closing(_opened_trackers(trackers, opened)) as tracking,
        MetricsWriter(_own_file(opened.folder, "metrics.jsonl"), tracking) as writer,
        SampleWriter(_own_file(opened.folder, "samples.jsonl")) as samples,
        EventWriter(_own_file(opened.folder, "events.jsonl")) as events,
        contextlib.closing(EventLoop()) as loop,
        ExitStack() as resources,
    ):
        yield RunContext(
            config=config,
            folder=opened.folder,
            run=opened.id,
            mesh=mesh,
            display=display,
            writer=writer,
            samples=samples,
            events=events,
            stop=stop,
            journal=journal,
            loop=loop,
            resources=resources,
        )
