"""Where something is kept: a folder of a file system, or an address."""

import os
import re
from pathlib import Path
from typing import TypeAlias, TypeGuard

from etils import epath

from fdjax.errors import ConfigError
from fdjax.files import cache_folder

__all__ = ["Place", "local_folder", "place", "remote"]

Place: TypeAlias = Path | epath.Path
"""A path of the file system, or an address below `gs://`."""

# A `pathlib.Path` of an address has lost one of its slashes.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)")


def place(text: str | os.PathLike[str]) -> Place:
    """What a setting names.

    >>> place("gs://bucket/runs"), place("runs")
    (PosixGPath('gs://bucket/runs'), PosixPath('runs'))

    Args:
      text: a path, or an address of Google Cloud Storage.

    Raises:
      ConfigError: it is an address of another kind, or has no bucket.
    """
    match = _ADDRESS.fullmatch(os.fspath(text))
    if match is None:
        return Path(text)
    scheme, rest = match.groups()
    if scheme != "gs" or not rest:
        raise ConfigError(
            f"expected a folder or an address such as gs://bucket/runs, got {text}; "
            "of object stores, Google Cloud Storage is supported"
        )
    return epath.Path(f"gs://{rest}")


def remote(where: Place) -> TypeGuard[epath.Path]:
    """Whether it is an address of an object store."""
    return str(where).startswith("gs://")


def local_folder(where: Place) -> Path:
    """The folder of this machine for what belongs to a place.

    The place itself, or for an address one in the user's cache.
    """
    if remote(where):
        return cache_folder() / "gs" / str(where).removeprefix("gs://")
    return Path(where)
