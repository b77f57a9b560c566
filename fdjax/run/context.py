"""What every stage of a run shares: settings, folder, screen, and the clock."""

import contextlib
import logging
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
from fdjax.errors import StoreError
from fdjax.metrics import EventWriter, MetricsWriter, SampleWriter
from fdjax.metrics.trackers import TrackersConfig, Tracking
from fdjax.objects import Place, holds
from fdjax.rollout import EventLoop, Journal
from fdjax.run.changes import ResumeRules
from fdjax.run.console import Display
from fdjax.run.folder import Resume, Run, begun_phases, open_run, to_json
from fdjax.run.mirror import Mirror, open_mirror
from fdjax.sharding import on_first
from fdjax.train import StoppedError, StopRequest, stop_on_signal

__all__ = ["RunContext", "run_folder"]


_JOURNAL = "journal"
"""Folder in that of a run."""

_logger = logging.getLogger(__name__)


class RunSettings(Protocol):
    """What the settings of any run have."""

    @property
    def name(self) -> str:
        """Folder of the run below `runs`."""
        ...

    @property
    def runs(self) -> Place:
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
    """On this machine; what is written there is brought `home`."""
    mirror: Mirror
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

    @property
    def home(self) -> Place:
        """Where checkpoints and policies are kept: `folder`, or an address."""
        return self.mirror.home

    def saved(self, phase: str) -> None:
        """Drops from the journal what the newest checkpoint of a phase has passed."""
        if jax.process_index() != 0:
            return
        try:
            steps = checkpoint_steps(self.home / "checkpoints" / phase)
            self.journal.passed(phase, max(steps, default=0))
        except StoreError as error:
            _logger.warning("The journal keeps what it could drop: %s", error)

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
    with open_mirror(config.runs / config.name) as mirror:
        begun = mirror.folder / "config.json"
        resumes = config.resume == "newest" or (
            config.resume == "auto" and on_first(begun.exists)
        )
        with _opened(mirror, config, rules, resume=resumes) as opened:
            for note in opened.notes:
                display.say(f"[yellow]Since the run began:[/] {escape(note)}")
            # Whoever finds checkpoints must find whose they are.
            mirror.keep(must=True)
            try:
                decided = fingerprint([rules.deciding(to_json(config))])
                told = trackers or TrackersConfig()
                with _writers(
                    config, opened, mirror, display, mesh, decided, told
                ) as context:
                    yield context
            except StoppedError:
                raise
            except Exception as error:
                if not resumes:
                    _keep_or_discard(mirror, rules, error)
                raise


def _keep_or_discard(mirror: Mirror, rules: ResumeRules, error: Exception) -> None:
    """After an error in a new run: nothing stays where nothing was trained."""
    try:
        # Feedback may have been paid for before anything was trained.
        kept = begun_phases(mirror.home, rules) or holds(mirror.home / _JOURNAL)
    except StoreError:
        return
    if kept:
        error.add_note(
            "What was done is kept: the corrected command goes on with --resume."
        )
    else:
        # The corrected command must find its place free.
        mirror.discard()


@contextmanager
def _opened(
    mirror: Mirror, config: RunSettings, rules: ResumeRules, *, resume: bool
) -> Iterator[Run]:
    """The folder, which the first process opens and locks for all."""
    folder = mirror.folder
    with ExitStack() as stack:

        def opened() -> dict[str, Any]:
            run = stack.enter_context(
                open_run(folder, config, rules, resume=resume, home=mirror.home)
            )
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
    mirror: Mirror,
    display: Display,
    mesh: Mesh,
    decided: str,
    trackers: TrackersConfig,
) -> Iterator[RunContext[Config]]:
    journal = Journal(
        mirror.home / _JOURNAL, settings=decided, part=jax.process_index()
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
            mirror=mirror,
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
