"""The Lean program that checks: one core, and a driver for each way to run it."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Literal

from fdjax.errors import InstallError
from fdjax.files import cache_folder, write_whole

__all__ = ["program_file", "program_text", "program_version"]

CORE = ("values", "data", "rules", "elaboration", "kernel", "verbs")
"""The files that both drivers need, in the order in which Lean reads them."""
PLACEHOLDER = "FDJAX"

Driver = Literal["session", "project"]
"""A command in a Lean session, or a program for `lean --run`."""


@cache
def _template(driver: Driver) -> str:
    folder = Path(__file__).parent
    return "\n".join((folder / f"{part}.lean").read_text() for part in (*CORE, driver))


def program_text(driver: Driver, word: str) -> str:
    """The program behind its imports; its own names begin with `_` and the word."""
    return _template(driver).replace(PLACEHOLDER, word)


@cache
def program_version(driver: Driver) -> str:
    """Hash of the program: verdicts of another one are not reused."""
    return hashlib.sha256(_template(driver).encode()).hexdigest()[:12]


def program_file() -> Path:
    """The program for `lean --run`, in one file in the user's cache.

    Its name changes with what it says, so processes of several versions may share the
    cache.

    Raises:
      InstallError: the cache cannot be written.
    """
    text = f"import Lean\n{program_text('project', 'fdjax')}".encode()
    file = cache_folder() / f"checker-{program_version('project')}.lean"
    try:
        if not file.is_file() or file.read_bytes() != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, text)
    except OSError as error:
        raise InstallError(
            f"The checker of Lake projects was expected to be written to {file}, got "
            f"{error}; make the folder writable, or name another as XDG_CACHE_HOME."
        ) from error
    return file
