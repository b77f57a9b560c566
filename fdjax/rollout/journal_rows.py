"""The rows of a journal: lines of files on a disk, or objects in a store."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from etils import epath

from fdjax.jsonl import LineFile
from fdjax.objects import Place, children, delete_each, read, remote, write

__all__ = ["Rows", "Shelf", "shelf"]


@runtime_checkable
class Rows(Protocol):
    """Where one process adds rows about a rollout."""

    def append(self, line: bytes) -> Callable[[], None]:
        """Writes a row in its place; what is returned waits until it is durable.

        Raises:
          OSError: the disk, or the store, refuses.
        """
        ...


@runtime_checkable
class Shelf(Protocol):
    """A folder with the rows of all rollouts."""

    def read(self, phase: str, number: int) -> list[bytes]:
        """The rows of each process about a rollout, in the order written."""
        ...

    def rows(self, phase: str, number: int, part: int) -> Rows:
        """Where a process adds its own."""
        ...

    def drop(self, phase: str, before: int | None) -> None:
        """Drops rollouts of lower numbers; all with None."""
        ...


def shelf(folder: Place) -> Shelf:
    """The one that a place asks for."""
    return _StoreShelf(folder) if remote(folder) else _DiskShelf(Path(folder))


class _DiskShelf:
    """Files `<phase>/<number>.<part>.jsonl`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, phase: str, number: int) -> list[bytes]:
        files = sorted((self._folder / phase).glob(f"{number}.*.jsonl"))
        return [file.read_bytes() for file in files]

    def rows(self, phase: str, number: int, part: int) -> Rows:
        return _DiskRows(self._folder / phase / f"{number}.{part}.jsonl")

    def drop(self, phase: str, before: int | None) -> None:
        folder = self._folder / phase
        for path in folder.glob("*.*.jsonl"):
            if _passed(path.name, before):
                path.unlink(missing_ok=True)
        for empty in (folder, self._folder):
            with contextlib.suppress(OSError):
                empty.rmdir()


class _DiskRows:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun = False

    def append(self, line: bytes) -> Callable[[], None]:
        file = self._file()
        try:
            file.append(line)
        except OSError:
            file.close()
            raise
        self._begun = True
        return file.close

    def _file(self) -> LineFile:
        """The file, without half a row at its end."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = LineFile(self._path)
        if file.size and not self._begun:
            # Its writer may have been killed.
            file.cut(self._path.read_bytes().rfind(b"\n") + 1)
        return file


class _StoreShelf:
    """Objects `<phase>/<number>.<part>.<time>.jsonl`, each with one row.

    Nothing is appended in a store, and an object may be written once a second only. So
    each row is an object of its own, named by the time in nanoseconds.
    """

    def __init__(self, folder: epath.Path) -> None:
        self._folder = folder
        self._dropped: dict[str, int] = {}
        """Up to which number, so that a store is not asked at each iteration."""

    def read(self, phase: str, number: int) -> list[bytes]:
        names: dict[str, list[str]] = {}
        for name in children(self._folder / phase):
            if name.startswith(f"{number}."):
                names.setdefault(name.split(".")[1], []).append(name)
        return [
            b"".join(read(self._folder / phase / name) for name in sorted(of_part))
            for of_part in names.values()
        ]

    def rows(self, phase: str, number: int, part: int) -> Rows:
        return _StoreRows(self._folder / phase / f"{number}.{part}")

    def drop(self, phase: str, before: int | None) -> None:
        if before is not None and self._dropped.get(phase, 0) == before:
            return
        folder = self._folder / phase
        names = [name for name in children(folder) if _passed(name, before)]
        delete_each([folder / name for name in names])
        if before is not None:
            self._dropped[phase] = before


class _StoreRows:
    def __init__(self, prefix: epath.Path) -> None:
        self._prefix = prefix
        self._times = _increasing()

    def append(self, line: bytes) -> Callable[[], None]:
        name = f"{self._prefix.name}.{next(self._times):020d}.jsonl"
        return lambda: write(self._prefix.with_name(name), line)


def _increasing() -> Iterator[int]:
    """Times in nanoseconds, each later than the one before."""
    last = 0
    while True:
        last = max(last + 1, time.time_ns())
        yield last


def _passed(name: str, before: int | None) -> bool:
    number = name.partition(".")[0]
    return before is None or (number.isdecimal() and int(number) < before)
