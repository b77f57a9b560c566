"""Several processes as one run: how they meet."""

from dataclasses import replace
from typing import Any

from fdjax.processes import ProcessesConfig
from fdjax.run.config import RunConfig
from fdjax.run.folder import to_json
from fdjax.sharding import initialize_distributed

__all__ = ["alike", "join"]


def join(settings: ProcessesConfig) -> None:
    """Joins this process to the others of the run.

    Raises:
      ConfigError: some of the three settings are given, but not all.
    """
    initialize_distributed(
        coordinator_address=settings.coordinator,
        num_processes=settings.count,
        process_id=settings.index,
    )


def alike(config: RunConfig) -> Any:
    """The settings that all processes must have alike, as JSON values."""
    return to_json(replace(config, processes=replace(config.processes, index=None)))
