"""Folders that are whole or absent, on a disk and in an object store."""

import shutil
from pathlib import Path

from fdjax.objects.address import Place, remote
from fdjax.objects.store import delete, exists, read, upload

__all__ = ["is_whole", "publish", "read_bytes"]

_LAST = ("config.json", "adapter_config.json")
"""Files without which nobody takes a folder for a model: they go last."""


def read_bytes(path: Place) -> bytes:
    """The content of a file or an object.

    Raises:
      FileNotFoundError: there is none.
      StoreError: the store refuses, or does not answer.
    """
    return read(path) if remote(path) else path.read_bytes()


def publish(folder: Path, target: Place) -> None:
    """Puts a finished folder where it is to be; it is whole there, or absent.

    On a disk it is renamed. A store has its files one after the other, the one by which
    it is known last, and the folder goes.

    Args:
      folder: of a model, or of adapters.
      target: has none, or part of one.
    """
    if not remote(target):
        folder.rename(target)
        return
    delete(target)
    files = sorted(
        (path for path in folder.rglob("*") if path.is_file()),
        key=lambda path: (path.name in _LAST, str(path)),
    )
    for path in files:
        upload(path, target / path.relative_to(folder).as_posix())
    shutil.rmtree(folder)


def is_whole(target: Place) -> bool:
    """Whether what was published is there."""
    if remote(target):
        return any(exists(target / name) for name in _LAST)
    return target.exists()
