"""What every stage of a run shares: settings, folder, Lean, screen, and the clock."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import jax
from jax.sharding import Mesh

from fdjax.lean import Verifier
from fdjax.metrics import MetricsWriter, SampleWriter
from fdjax.run.console import Display
from fdjax.train import StopRequest

__all__ = ["RunContext"]


class _Seeded(Protocol):
    """A configuration; it has a seed."""

    @property
    def seed(self) -> int: ...


Config = TypeVar("Config", bound=_Seeded)


@dataclass(frozen=True, kw_only=True)
class RunContext(Generic[Config]):
    """One run on its way."""

    config: Config
    folder: Path
    run: str
    """Identity of the run, which its checkpoints and results carry."""
    mesh: Mesh
    verifier: Verifier
    display: Display
    writer: MetricsWriter
    samples: SampleWriter
    stop: StopRequest
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by name of what it went to."""

    def key(self, purpose: int) -> jax.Array:
        """The PRNG key of one purpose: initialisation, training, evaluation, ..."""
        return jax.random.fold_in(jax.random.key(self.config.seed), purpose)

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
