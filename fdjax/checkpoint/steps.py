"""The folders of checkpoints, named by their steps."""

import logging
from pathlib import Path

import jax

from fdjax.checkpoint.orbax_tree import STATE

__all__ = ["HOST", "checkpoint_steps", "set_aside", "set_remains_aside"]

HOST = "host"
"""Subfolder of a checkpoint in which the host's part is."""

_PARTS = (STATE, HOST)

_logger = logging.getLogger(__name__)


def checkpoint_steps(directory: Path) -> list[int]:
    """Steps of the checkpoints in a folder, damaged ones too, oldest first."""
    return sorted(
        int(folder.name) for folder in _numbered(directory) if _is_checkpoint(folder)
    )


def set_remains_aside(directory: Path) -> None:
    """Renames folders named like a step that hold no part of a checkpoint."""
    for folder in _numbered(directory):
        if not _is_checkpoint(folder):
            set_aside(folder, f"it holds none of {', '.join(_PARTS)}")


def set_aside(folder: Path, reason: str) -> None:
    """Renames a step's folder to `<step>.set-aside`; one process does it for all."""
    if jax.process_index() != 0:
        return
    target, tries = folder.with_name(f"{folder.name}.set-aside"), 1
    while target.exists():
        tries += 1
        target = folder.with_name(f"{folder.name}.set-aside-{tries}")
    folder.rename(target)
    _logger.warning("Moved %s to %s: %s.", folder, target.name, reason)


def _numbered(directory: Path) -> list[Path]:
    """What is named like a step."""
    if not directory.is_dir():
        return []
    return [
        path
        for path in directory.iterdir()
        if path.name.isdecimal() and path.name == str(int(path.name))
    ]


def _is_checkpoint(folder: Path) -> bool:
    """Whether it holds any part of one; another part may be lost."""
    return any((folder / part).is_dir() for part in _PARTS)
