"""Metrics for TensorBoard, through tensorboardX."""

import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fdjax.errors import InstallError

__all__ = ["TensorBoard"]


class TensorBoard:
    """Event files of a run, a folder for each phase (`Tracker`).

    `tensorboard --logdir FOLDER` draws the phases as runs of one plot.
    """

    def __init__(self, folder: Path) -> None:
        """Ready to write; no file is made before the first row.

        Raises:
          InstallError: tensorboardX is not installed.
        """
        try:
            library = importlib.import_module("tensorboardX")
        except ImportError as error:
            raise InstallError(
                "expected tensorboardX for trackers.tensorboard, got none: pip install "
                "'fdjax[tensorboard]'"
            ) from error
        self._folder = folder
        self._make = library.SummaryWriter
        self._writers: dict[str, Any] = {}

    def write(
        self, arm: str, step: int, values: Mapping[str, float], wall_time_s: float
    ) -> None:
        """One row (`Tracker`)."""
        writer = self._writer(arm)
        for name, value in values.items():
            writer.add_scalar(name, value, step, walltime=wall_time_s)
        writer.flush()

    def truncate_after(self, arm: str, step: int) -> None:
        """Has TensorBoard forget what comes after a step (`Tracker`)."""
        if arm in self._writers:
            self._writers.pop(arm).close()
        if (self._folder / arm).exists():
            self._writer(arm, purge_step=step + 1)

    def close(self) -> None:
        """Closes the files (`Tracker`)."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, arm: str, **settings: Any) -> Any:
        if arm not in self._writers:
            # Files are named by the second: one of the same second would be replaced.
            self._writers[arm] = self._make(
                str(self._folder / arm),
                filename_suffix=f".{time.time_ns()}",
                **settings,
            )
        return self._writers[arm]
