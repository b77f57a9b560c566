"""Metrics for Weights & Biases, through its own library."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from fdjax.errors import InstallError

__all__ = ["WandB"]


class WandB:
    """One W&B run (`Tracker`): `<phase>/<metric>` over `<phase>/step`.

    A resumed run goes on under the same id. W&B forgets nothing: steps that were
    repeated after a kill are points at the same step.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run: str,
        name: str,
        project: str,
        mode: Literal["online", "offline"],
    ) -> None:
        """Begins the run, or goes on with it.

        Args:
          folder: receives W&B's own files.
          run: identity of the run.
          name: as people call it.
          project: of W&B.
          mode: offline writes files for `wandb sync`.

        Raises:
          InstallError: wandb is not installed.
        """
        try:
            wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise InstallError(
                "expected wandb for trackers.wandb, got none: pip install "
                "'fdjax[wandb]'"
            ) from error
        folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=project,
            name=name,
            id=run,
            resume="allow",
            dir=str(folder),
            mode=mode,
        )
        self._phases: set[str] = set()

    def write(
        self, arm: str, step: int, values: Mapping[str, float], wall_time_s: float
    ) -> None:
        """One row (`Tracker`)."""
        if arm not in self._phases:
            self._phases.add(arm)
            self._run.define_metric(f"{arm}/*", step_metric=f"{arm}/step")
        row = {f"{arm}/{name}": value for name, value in values.items()}
        self._run.log(row | {f"{arm}/step": step, f"{arm}/time": wall_time_s})

    def truncate_after(self, arm: str, step: int) -> None:
        """Nothing: a later point at a step stands beside the earlier one."""

    def close(self) -> None:
        """Sends what is left (`Tracker`)."""
        self._run.finish()
