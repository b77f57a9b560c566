"""Files that change as a whole or not at all, whenever a process is killed."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["UNFINISHED", "replacing", "write_whole"]

UNFINISHED = ".fdjax-*.tmp"
"""Pattern of the names that new files have until they are whole."""


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
        with unfinished.open("xb") as file:
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
