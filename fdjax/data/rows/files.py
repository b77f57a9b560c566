"""The raw rows of a file or folder, each with its place, before anything is checked."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fdjax.encoding import encode
from fdjax.errors import DataError
from fdjax.jsonl import shorten

__all__ = ["RawRow", "json_rows", "lean_rows"]

_BLANK = " \t\r\n"
_START = 4096
"""Bytes in which the bracket of an array is looked for."""


class RawRow(NamedTuple):
    """A row as it came."""

    number: int
    """Line of the file, item of the array, file of the folder, row of the dataset;
    from 1."""
    place: str
    """The same in words, for messages."""
    text: bytes
    """JSON, as it should be."""


def json_rows(path: Path) -> Iterator[RawRow]:
    """The lines of a JSONL file that are not blank, or the items of a JSON array.

    A byte order mark at the file's beginning is skipped.

    Raises:
      DataError: the file cannot be read, or is an array that is damaged.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_START).removeprefix(codecs.BOM_UTF8)
            file.seek(0)
            if start.lstrip().startswith(b"["):
                yield from _items(path, file.read())
                return
            # Only line feeds end a row: text mode would also cut at other characters.
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    yield RawRow(number, f"{path}, line {number}", line)
    except OSError as error:
        raise _unreadable(path, error) from error


def lean_rows(path: Path) -> Iterator[RawRow]:
    """A Lean file, or those of a folder in order of their names, as rows of `source`.

    Raises:
      DataError: a file cannot be read, or the folder holds none.
    """
    try:
        files = sorted(path.glob("*.lean")) if path.is_dir() else [path]
        for number, file in enumerate(files, start=1):
            yield RawRow(number, str(file), _as_row(file.read_bytes()))
    except OSError as error:
        raise _unreadable(path, error) from error
    if not files:
        raise DataError(
            f"Expected Lean files in the folder {path}, got none; name the folder that "
            "holds them, a file of rows, or the split of a dataset."
        )


def _as_row(content: bytes) -> bytes:
    """A row that holds a file's content."""
    try:
        return encode({"source": content.decode("utf-8-sig")})
    except UnicodeDecodeError:
        return content  # the reader of rows says the same of bytes as of a file


def _items(path: Path, content: bytes) -> Iterator[RawRow]:
    """The items of a JSON array, each as the text that it is."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected UTF-8, got {error}; save the file in that encoding."
        ) from error
    decoder = json.JSONDecoder()
    position = _skip(text, text.index("[") + 1)
    number = 0
    while not text.startswith("]", position):
        number += 1
        try:
            _, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise _damaged(path, number, text[position:], str(error)) from error
        yield RawRow(number, f"{path}, item {number}", text[position:end].encode())
        position = _skip(text, end)
        if text.startswith(",", position):
            position = _skip(text, position + 1)
        elif not text.startswith("]", position):
            raise _damaged(path, number + 1, text[position:], "no comma before it")
    if rest := text[position + 1 :].strip(_BLANK):
        raise _damaged(path, number + 1, rest, "it stands behind the array")


def _skip(text: str, position: int) -> int:
    """The position of the next character that is not blank."""
    while position < len(text) and text[position] in _BLANK:
        position += 1
    return position


def _damaged(path: Path, number: int, text: str, reason: str) -> DataError:
    got = shorten(text[:81].strip()) or "the end of the file"
    return DataError(
        f"{path}, item {number}: expected an array of JSON objects, got {got} "
        f"({reason}); write the file again."
    )


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"Expected a readable file of rows at {path}, got {type(error).__name__}: "
        f"{error}; correct the path or the file, or name the split of a dataset."
    )
