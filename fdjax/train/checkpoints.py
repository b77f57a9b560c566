"""When a checkpoint is due: after so many iterations, or after so much time."""

import time
from dataclasses import dataclass, field

from fdjax.checkpoint import Retention
from fdjax.ranges import FLAG, Number, Whole, require_fields
from fdjax.sharding import on_first

__all__ = ["CheckpointClock", "CheckpointsConfig"]


@dataclass(frozen=True, kw_only=True)
class CheckpointsConfig:
    """When training is saved, which checkpoints stay, and what is exported of them.

    None of it decides what is computed: a run that is resumed from any checkpoint takes
    the same steps. With `attempts` that is so up to rounding.
    """

    every: int = 20
    """Iterations between checkpoints; the last iteration is always saved."""
    minutes: float | None = None
    """Wall time after which an iteration is saved in any case, counted from the
    checkpoint before; by default time does not count."""
    keep: Retention = field(default_factory=Retention)
    """Which checkpoints stay."""
    export_every: int | None = None
    """Iterations between exports to Hugging Face's format, each from a checkpoint of
    that iteration; none by default."""
    attempts: bool = False
    """Whether the attempts of finished groups, too, are kept on disk until a checkpoint
    has passed them. A run that is killed in a long iteration then samples only the
    rest. That rest is in other company on the devices, so its log-probabilities may
    differ in their last bits from those of a run that nobody killed."""

    def __post_init__(self) -> None:
        require_fields(self, every=Whole(1), attempts=FLAG)
        if self.minutes is not None:
            require_fields(self, minutes=Number(above=0))
        if self.export_every is not None:
            require_fields(self, export_every=Whole(1))

    def exports(self, step: int) -> bool:
        """Whether the checkpoint of a step is exported."""
        every = self.export_every
        return every is not None and step > 0 and step % every == 0


class CheckpointClock:
    """Says after each iteration whether a checkpoint is due."""

    def __init__(self, config: CheckpointsConfig) -> None:
        """Begins to count the time.

        Args:
          config: when one is due.
        """
        self._config = config
        self._saved_s = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether the iteration that has just ended is to be saved.

        All processes get the same answer: the clock of the first decides.
        """
        config = self._config
        if step % config.every == 0 or config.keep.names(step) or config.exports(step):
            return True
        if config.minutes is None:
            return False
        late = time.monotonic() - self._saved_s >= 60 * config.minutes
        return on_first(lambda: late)

    def saved(self) -> None:
        """Counts the time anew, from a checkpoint that has just been made."""
        self._saved_s = time.monotonic()
