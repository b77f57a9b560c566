"""A folder that a model may write into, and no way out of it."""

import os
import shutil
import stat
import string
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fdjax.tools.tool import ToolError

__all__ = ["Workspace", "opened_below"]

FILE_BYTES = 100_000
"""The largest file, in UTF-8 bytes."""
FILES = 64
"""How many files a workspace may hold."""
DEPTH = 4
"""Parts of a path."""

_LETTERS = frozenset(f"{string.ascii_letters}{string.digits}_-.")


@contextmanager
def opened_below(
    folder: Path, parts: list[str], flags: int, *, make_folders: bool = False
) -> Iterator[int]:
    """A descriptor of a regular file below a folder; no link is followed on the way.

    Each part is opened from the folder before it, so that nobody can put a link in its
    place in between.

    Args:
      folder: where the path begins; it may itself be a link.
      parts: names, the file's last.
      flags: of `os.open`.
      make_folders: whether missing folders are made.

    Raises:
      OSError: there is no such file, or something on the way is no folder.
      ToolError: a part points elsewhere, or it is no regular file.
    """
    if any(part in ("", ".", "..") or "/" in part or "\0" in part for part in parts):
        raise ToolError("a path is made of names: no `..`, and no `/` at its beginning")
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            if make_folders:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=at)
            below = os.open(
                part,
                os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                dir_fd=at,
            )
            os.close(at)
            at = below
        # A pipe would wait for its other end.
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(parts[-1], flags, 0o600, dir_fd=at)
    finally:
        os.close(at)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise ToolError("that is no regular file")
        yield file
    finally:
        os.close(file)


class Workspace:
    """The folder of one episode: Lean files, few and small."""

    def __init__(self, folder: Path) -> None:
        """Use a folder that is there, and that nobody else writes into."""
        self._folder = folder
        self._texts: dict[str, str] = {}
        """What was written, the last at the end."""

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator["Workspace"]:
        """A new folder, which goes with all that is in it."""
        folder = Path(tempfile.mkdtemp(prefix="fdjax-workspace-"))
        try:
            yield cls(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def last_text(self) -> str | None:
        """The text of the file written last; None where none was."""
        return next(reversed(self._texts.values()), None)

    def write(self, path: str, text: str) -> None:
        """Write a file, in place of one that is there.

        Raises:
          ToolError: the path is none of a workspace, or the text is too much.
        """
        parts = _parts(path)
        content = text.encode()
        if len(content) > FILE_BYTES:
            raise ToolError(
                f"the file has {len(content)} bytes; {FILE_BYTES} are the most"
            )
        if path not in self._texts and len(self._texts) >= FILES:
            raise ToolError(f"there are {FILES} files already; write one of them anew")
        flags = os.O_WRONLY | os.O_CREAT
        try:
            with opened_below(self._folder, parts, flags, make_folders=True) as file:
                if os.fstat(file).st_nlink > 1:
                    raise ToolError(f"`{path}` is also the name of another file")
                os.ftruncate(file, 0)
                with os.fdopen(os.dup(file), "wb") as stream:
                    stream.write(content)
        except OSError as error:
            raise ToolError(f"`{path}` cannot be written: {error.strerror}") from error
        self._texts.pop(path, None)
        self._texts[path] = text

    def read(self, path: str) -> str:
        """The text of a file.

        Raises:
          ToolError: there is no such file in the workspace.
        """
        try:
            with opened_below(self._folder, _parts(path), os.O_RDONLY) as file:
                if os.fstat(file).st_nlink > 1:
                    raise ToolError(f"`{path}` is also the name of another file")
                with os.fdopen(os.dup(file), "rb") as stream:
                    return stream.read(FILE_BYTES).decode(errors="replace")
        except OSError as error:
            there = ", ".join(self._texts) or "none"
            raise ToolError(
                f"`{path}` cannot be read: {error.strerror}; files so far: {there}"
            ) from error


def _parts(path: str) -> list[str]:
    """The parts of a path in a workspace.

    Raises:
      ToolError: it is no such path.
    """
    parts = path.split("/")
    if len(parts) > DEPTH or not path.endswith(".lean") or len(path) > 200:
        raise ToolError(
            f"`{path[:200]}` is no path of a file here: take one such as proof.lean, "
            f"at most {DEPTH} parts, that ends in .lean"
        )
    for part in parts:
        if not part or part.startswith(".") or not _LETTERS.issuperset(part):
            raise ToolError(
                f"`{path}` is no path of a file here: its parts are letters, digits, "
                "`_`, `-` and dots, and no part begins with a dot"
            )
    return parts
