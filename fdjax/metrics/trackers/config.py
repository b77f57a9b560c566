"""Which trackers a run has."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fdjax.errors import ConfigError, InstallError
from fdjax.metrics.trackers.tensorboard import TensorBoard
from fdjax.metrics.trackers.tracker import Tracker, Tracking
from fdjax.metrics.trackers.wandb import WandB
from fdjax.ranges import FLAG, Among, require_fields

__all__ = ["TrackersConfig"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrackersConfig:
    """Where metrics go beside metrics.jsonl; by default nowhere."""

    tensorboard: bool = False
    """Event files in the run's folder `tensorboard` (`pip install
    'fdjax[tensorboard]'`)."""
    wandb: str | None = None
    """A project of Weights & Biases (`pip install 'fdjax[wandb]'`)."""
    wandb_mode: Literal["online", "offline"] = "online"
    """Offline writes files into the run's folder `wandb`, for `wandb sync`."""

    def __post_init__(self) -> None:
        require_fields(self, tensorboard=FLAG, wandb_mode=Among("online", "offline"))
        if self.wandb == "":
            raise ConfigError("expected trackers.wandb to name a project, got ''")

    def open(self, folder: Path, *, run: str) -> Tracking:
        """The trackers of a run, begun or gone on with.

        Args:
          folder: of the run; its name is the run's.
          run: identity of the run.

        Raises:
          InstallError: a tracker's library is not installed.
        """
        trackers: list[Tracker] = []
        if self.tensorboard:
            trackers.append(TensorBoard(folder / "tensorboard"))
        if self.wandb is not None:
            try:
                trackers.append(
                    WandB(
                        folder,
                        run=run,
                        name=folder.name,
                        project=self.wandb,
                        mode=self.wandb_mode,
                    )
                )
            except InstallError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever the library raises
                _log.warning("W&B gets no metrics of this run: %s", error)
        return Tracking(trackers)
