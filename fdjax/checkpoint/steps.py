"""The folders of checkpoints, named by their steps."""

import logging
import shutil

import jax

from fdjax.checkpoint.orbax_tree import STATE
from fdjax.objects import Place, children, delete, exists, move, remote

__all__ = [
    "COMMITTED",
    "HOST",
    "checkpoint_steps",
    "clear_remains",
    "delete_step",
    "set_aside",
]

HOST = "host"
"""Subfolder of a checkpoint in which the host's part is."""

COMMITTED = "commit_success.txt"
"""Object with which Orbax says that a checkpoint in an object store is complete. On a
disk it renames the folder instead."""

_PARTS = (STATE, HOST)

_logger = logging.getLogger(__name__)


def checkpoint_steps(directory: Place) -> list[int]:
    """Steps of the checkpoints in a folder, damaged ones too, oldest first."""
    return sorted(
        int(folder.name) for folder in _numbered(directory) if _is_checkpoint(folder)
    )


def clear_remains(directory: Place) -> None:
    """Renames folders named like a step that hold no part of a checkpoint.

    In an object store these are checkpoints that were not completed, and are deleted.
    Orbax would do so while the next save writes to the same names.
    """
    for folder in _numbered(directory):
        if _is_checkpoint(folder):
            continue
        if remote(directory):
            delete_step(folder)
        else:
            set_aside(folder, f"it holds none of {', '.join(_PARTS)}")


def set_aside(folder: Place, reason: str) -> None:
    """Renames a step's folder to `<step>.set-aside`; one process does it for all."""
    if jax.process_index() != 0:
        return
    taken = _names(folder.parent)
    name, tries = f"{folder.name}.set-aside", 1
    while name in taken:
        tries += 1
        name = f"{folder.name}.set-aside-{tries}"
    if remote(folder):
        # From its first object on it is no checkpoint, however far this gets.
        move(folder, folder.with_name(name), first=COMMITTED)
    else:
        folder.rename(folder.with_name(name))
    _logger.warning("Moved %s to %s: %s.", folder, name, reason)


def delete_step(folder: Place) -> None:
    """Deletes a checkpoint; of one that is cut short no part passes for a whole."""
    if remote(folder):
        delete(folder, first=COMMITTED)
    else:
        shutil.rmtree(folder)


def _names(directory: Place) -> list[str]:
    if remote(directory):
        return children(directory)
    return [path.name for path in directory.iterdir()] if directory.is_dir() else []


def _numbered(directory: Place) -> list[Place]:
    """What is named like a step."""
    return [
        directory / name
        for name in _names(directory)
        if name.isdecimal() and name == str(int(name))
    ]


def _is_checkpoint(folder: Place) -> bool:
    """Whether it holds any part of one; another part may be lost."""
    if remote(folder):
        return exists(folder / COMMITTED)
    return any((folder / part).is_dir() for part in _PARTS)
