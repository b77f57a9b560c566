"""JSON lines files: rows that know where they stand, and lines that stay whole."""

import codecs
import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Self

from fdjax.encoding import decode
from fdjax.errors import DataError
from fdjax.files import naming

__all__ = ["LineFile", "Row", "iterate_rows", "row_of", "shorten", "whole_rows"]


class _Object(dict[str, Any]):
    """A JSON object that knows whether a key was given twice."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.repeated: list[str] = []
        """The keys given more than once."""
        if len(self) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            self.repeated = [key for key, count in counts.items() if count > 1]


def _number(digits: str) -> int | float:
    """An integer; one too long for Python is infinite, as 1e999 is."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


class Row:
    """One object of a file, with checks that name file and line."""

    def __init__(self, place: str, line: bytes):
        """Read the object.

        Args:
          place: file and line, for messages.
          line: JSON text in UTF-8.

        Raises:
          DataError: the line is no JSON object in UTF-8, or holds a key twice.
        """
        self._place = place
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise self.error(
                "UTF-8", str(error), "save the file in that encoding"
            ) from error
        try:
            values = decode(text, object_pairs_hook=_Object, parse_int=_number)
        except RecursionError as error:
            raise self.error(
                "a JSON object",
                f"{shorten(text.strip())} (brackets nested deeper than can be read)",
                "leave out the key that holds them",
            ) from error
        except ValueError as error:
            raise self.error(
                "a JSON object",
                f"{shorten(text.strip())} ({error})",
                "write one complete object on each line",
            ) from error
        if not isinstance(values, _Object):
            raise self.error(
                "a JSON object",
                type(values).__name__,
                "write one object on each line",
            )
        if values.repeated:
            raise self.error(
                "each key once",
                f"`{shorten(values.repeated[0])}` more than once",
                "keep the one that is meant",
            )
        self.values: dict[str, Any] = values
        """The object as it was read."""

    def text(self, key: str, *, required: bool = False) -> str:
        """The string under `key`; an optional one that is missing or null is empty.

        Raises:
          DataError: the value is no string, or a required one is missing or blank.
        """
        value = self.values.get(key)
        if value is None and not required:
            return ""
        if not isinstance(value, str) or (required and not value.strip()):
            got = "nothing" if key not in self.values else shorten(repr(value))
            raise self.error(
                f"text for `{key}`", got, "add it as a non-empty JSON string"
            )
        return value

    def error(self, expected: str, got: str, remedy: str) -> DataError:
        """The error to raise about this row."""
        return DataError(f"{self._place}: expected {expected}, got {got}; {remedy}.")


def iterate_rows(path: Path) -> Iterator[Row]:
    """The rows of a file in order, one at a time; blank lines are skipped.

    A byte order mark at the file's beginning is skipped, too.

    Raises:
      DataError: the file cannot be read, or a line is no JSON object in UTF-8 or holds
        a key twice.
    """
    try:
        # Only line feeds end a row: text mode would also cut at other characters.
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    yield Row(f"{path}, line {number}", line)
    except OSError as error:
        raise DataError(
            f"Expected a readable JSONL file at {path}, got {type(error).__name__}: "
            f"{error}; correct the path or the file."
        ) from error


class LineFile:
    """Lines appended to a file; a context manager.

    A line is handed to the operating system before `append` returns, all of it or,
    where that fails, nothing. A process that is killed leaves at most half a line at
    the end. One writer at a time. Methods raise OSError where the system refuses.
    """

    def __init__(self, path: Path) -> None:
        """Open the file for appending, creating it.

        Args:
          path: the file; its folder exists.
        """
        self._path = path
        self._file = path.open("ab", buffering=0)
        self.size = self._file.tell()
        """Bytes of the file."""

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file.closed

    def fileno(self) -> int:
        """The file's number, for locks."""
        return self._file.fileno()

    def append(self, line: bytes) -> None:
        """Write a line, its line feed included."""
        view = memoryview(line)
        try:
            with naming(self._path):
                while view:
                    view = view[self._file.write(view) or 0 :]
        except OSError as error:
            self.cut(self.size)
            error.add_note("The rows before are whole; make room and go on.")
            raise
        self.size += len(line)

    def cut(self, size: int) -> None:
        """Drop what is behind the first `size` bytes."""
        self._file.truncate(size)
        self.size = size

    def close(self) -> None:
        """Flush to the disk and close; closing it again does nothing."""
        if not self.closed:
            with self._file:
                os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def whole_rows(
    path: Path, keys: Collection[str]
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each line of a file that is appended to, with its row.

    The last line is left out where it is none: its writer was killed, or is at it.

    Args:
      path: the file.
      keys: what every row holds.

    Raises:
      DataError: the file is missing, or a line before the last is no row.
    """
    damaged = None
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise DataError(
            f"expected a file of rows at {path}, got none: give the run's folder"
        ) from error
    with file:
        for number, line in enumerate(file, start=1):
            if damaged is not None:
                raise DataError(
                    f"expected a JSON object with {' and '.join(keys)} in line "
                    f"{number - 1} of {path}, got {damaged[:60]!r}: repair or remove "
                    "the line"
                )
            row = row_of(line, keys)
            if row is None:
                damaged = line
            else:
                yield line, row


def row_of(line: bytes, keys: Collection[str]) -> dict[str, Any] | None:
    """The row of a line; None when the line is torn or something else."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = decode(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and row.keys() >= set(keys) else None


def shorten(text: str) -> str:
    """The text cut to 80 characters, for messages."""
    return text if len(text) <= 80 else f"{text[:77]}…"
