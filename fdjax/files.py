"""Files that change as a whole or not at all, whenever a process is killed."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fdjax.errors import ConfigError

__all__ = [
    "UNFINISHED",
    "cache_folder",
    "naming",
    "replacing",
    "require_local",
    "write_whole",
]

UNFINISHED = ".fdjax-*.tmp"
"""Pattern of the names that new files have until they are whole."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:/")


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/fdjax`, or the same below `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fdjax"


def require_local(name: str, path: Path) -> None:
    """Refuses an address of an object store, of which a path would make a folder here.

    Files are appended to, locked and renamed, and such stores do none of it.

    Args:
      name: of the setting, as whoever set it knows it.
      path: what it was set to.

    Raises:
      ConfigError: with both.
    """
    if _SCHEME.match(str(path)):
        raise ConfigError(
            f"expected {name} to be a folder of a file system, got {path}, an address "
            "of an object store: give a disk that all hosts share, and copy from there"
        )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives an error of the system the file's name, which that of a write lacks."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside `path` that takes its place when the block ends well.

    Its content is on the disk before it does, and it keeps the mode of the file that
    was there. When the block raises, the old file stays and the new one goes; a process
    that is killed leaves at most a hidden file `.fdjax-….tmp` beside it.

    Args:
      path: file to write; its folder exists.

    Raises:
      OSError: the system refuses to write; `path` is as it was.
    """
    unfinished = path.with_name(UNFINISHED.replace("*", secrets.token_hex(8)))
    try:
        with naming(path), unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            shutil.copymode(path, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, replacing the one that is there as a whole.

    Raises:
      OSError: the system refuses to write; `path` is as it was.
    """
    with replacing(path) as file:
        file.write(content)
