"""Names of a compiled module's declarations, read from its `.olean` file.

The embedded Lean ships compiled modules and no sources. A file is a header and Lean
objects as they lie in memory, here of a 32-bit machine, little-endian; what is read of
them is laid out so (`lean.h` and `compacted_region` of Lean 4.28):

    header   "olean", version 2, flags, Lean's version [33], git hash [40],
             address of the data's begin, address of the root object, objects
    object   reference count [4], size [2], number of fields [1], tag [1]
    string   object, bytes with the final zero [4], capacity [4], length [4], UTF-8
    array    object, size [4], capacity [4], elements
    name     object, address of the prefix, address of the last part
    root     object, …: `ModuleData`, whose second field holds the constants' names

An odd address is a small number and no object. The package is pinned by its hash, so
that no other layout is met.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from fdjax.errors import InstallError

__all__ = ["declared_names"]

_ADDRESSES = 80
_ARRAY, _STRING = 246, 249
_NUMBERED = 2
_NAMES_FIELD = 1


def declared_names(path: Path) -> list[str]:
    """The names of a module's constants, in the file's order.

    Raises:
      InstallError: the file is damaged or laid out otherwise.
    """
    try:
        return list(_Module(path.read_bytes()).names())
    except (IndexError, UnicodeDecodeError, ValueError, struct.error) as error:
        raise InstallError(
            f"expected {path} to be a module of the embedded Lean, got something that "
            f"cannot be read ({error}); remove the folder and run `fdjax lean install`"
        ) from error


class _Module:
    """The objects of one file."""

    def __init__(self, content: bytes) -> None:
        if content[:6] != b"olean\x02":
            raise ValueError("another kind of file")
        self._content = content
        # Data begin where the header does, so that addresses count from the file's.
        self._begin, self._root = struct.unpack_from("<II", content, _ADDRESSES)
        self._known: dict[int, str] = {}

    def names(self) -> Iterator[str]:
        (names,) = struct.unpack_from(
            "<I", self._content, self._at(self._root) + 8 + 4 * _NAMES_FIELD
        )
        place = self._object(names, _ARRAY)
        (size,) = struct.unpack_from("<I", self._content, place + 8)
        for address in struct.unpack_from(f"<{size}I", self._content, place + 16):
            yield self._name(address)

    def _at(self, address: int) -> int:
        place = address - self._begin
        if not 0 <= place < len(self._content):
            raise ValueError("an address outside the file")
        return place

    def _object(self, address: int, tag: int) -> int:
        place = self._at(address)
        if self._content[place + 7] != tag:
            raise ValueError("an object of another kind")
        return place

    def _name(self, address: int) -> str:
        if address % 2:
            return ""
        if address not in self._known:
            place = self._at(address)
            before, last = struct.unpack_from("<II", self._content, place + 8)
            is_number = self._content[place + 7] == _NUMBERED
            part = str(last >> 1) if is_number else self._string(last)
            prefix = self._name(before)
            self._known[address] = f"{prefix}.{part}" if prefix else part
        return self._known[address]

    def _string(self, address: int) -> str:
        place = self._object(address, _STRING)
        (size,) = struct.unpack_from("<I", self._content, place + 8)
        return self._content[place + 20 : place + 20 + size - 1].decode()
