"""Where a run is kept: its folder, or an address that its files are brought to."""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from fdjax.errors import StoreError
from fdjax.objects import (
    WEIGHTY,
    Lease,
    Place,
    append,
    children,
    delete_each,
    download,
    local_folder,
    open_store,
    remote,
    upload,
    walk,
)
from fdjax.sharding import on_first_slowly

__all__ = ["Mirror", "open_mirror"]

_LOCK = "lock"
_PATIENCE_S = 3600.0
"""Time for which a run goes on without its object store, seconds."""

_logger = logging.getLogger(__name__)


class Mirror:
    """Brings a run's files to where the run is kept.

    Rows are appended to files in `folder`, on this machine. Where the run's home is an
    object store, `keep` uploads what has changed since, before a checkpoint is begun:
    so the files in the store are never older than the newest checkpoint there, and rows
    that are newer are cut off by whoever resumes. Without a store nothing is to do.
    """

    def __init__(self, home: Place, folder: Path, lease: Lease | None):
        """Takes what is in the folder as kept.

        Args:
          home: of the run.
          folder: that its processes write to on this machine.
          lease: of the process that writes the run's own files.
        """
        self.home = home
        self.folder = folder
        self._lease = lease
        files = self._files() if remote(home) else ()
        self._kept = {path: _state(path) for path in files}
        self._away_since: float | None = None

    def keep(self, must: bool = False) -> bool:
        """Whether all that was written is kept; all processes ask alike.

        Args:
          must: whether there is no later time to try it again.

        Raises:
          StoreError: it is not, and must be; the store has not answered for an hour; or
            another process has taken the run over.
        """
        if not remote(self.home):
            return True
        said = on_first_slowly(lambda: self._keep(must))
        if said["error"]:
            raise StoreError(said["error"])
        return said["kept"]

    def flush(self) -> None:
        """Uploads what this process has written since the last time.

        Raises:
          StoreError: the store refuses, or does not answer.
        """
        if not remote(self.home):
            return
        if self._lease is not None:
            self._lease.check()
        for path in self._files():
            state, before = _state(path), self._kept.get(path)
            if state == before:
                continue
            address = self.home / path.relative_to(self.folder).as_posix()
            if before and path.suffix == ".jsonl" and _grown(before, state):
                append(path, before.size, address)
            else:
                upload(path, address)
            self._kept[path] = state

    def discard(self) -> None:
        """Deletes the run, here and where it is kept."""
        if jax.process_index() != 0:
            return
        if remote(self.home) and self._lease is not None and not self._lease.lost:
            with contextlib.suppress(OSError):
                left = (self.home / name for name in walk(self.home) if name != _LOCK)
                delete_each(list(left))
        shutil.rmtree(self.folder, ignore_errors=True)

    def _keep(self, must: bool) -> dict[str, Any]:
        try:
            self.flush()
        except OSError as error:
            now = time.monotonic()
            self._away_since = self._away_since or now
            lost = self._lease is not None and self._lease.lost
            if must or lost or now - self._away_since > _PATIENCE_S:
                return {"kept": False, "error": str(error)}
            _logger.warning("No checkpoint now: %s", error)
            return {"kept": False, "error": ""}
        self._away_since = None
        return {"kept": True, "error": ""}

    def _files(self) -> list[Path]:
        """All but those that nobody is to see."""
        return sorted(
            path
            for path in self.folder.rglob("*")
            if path.is_file()
            and path.name != _LOCK
            and not any(
                part.startswith(".") for part in path.relative_to(self.folder).parts
            )
        )


@contextmanager
def open_mirror(home: Place) -> Iterator[Mirror]:
    """The run at a place, with its files on this machine.

    An address is locked for all processes by the first, which fetches the run's files,
    but for checkpoints, policies and the journal: these are read where they are. What
    was written is kept when the block ends, however it ends.

    Args:
      home: of the run.

    Raises:
      ConfigError: the address cannot be written, or another run is at work there.
      StoreError: at the end, what was written could not be kept.
    """
    if not remote(home):
        yield Mirror(home, Path(home), None)
        return
    open_store(home)
    index = jax.process_index()
    folder = local_folder(home)
    if index:
        folder = folder.with_name(f"{folder.name}.process{index}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        leases: list[Lease] = []

        def begin() -> None:
            leases.append(stack.enter_context(Lease(home / _LOCK)))
            download(home, folder, leave_out=(*WEIGHTY, _LOCK))
            # That they are there must be seen, by whoever wants a place for a new run.
            for name in set(children(home)) & set(WEIGHTY):
                (folder / name).mkdir(exist_ok=True)

        on_first_slowly(begin)
        mirror = Mirror(home, folder, leases[0] if leases else None)
        try:
            yield mirror
        except BaseException as error:
            _at_the_end(mirror.flush, folder, error.add_note)
            raise
        try:
            mirror.flush()
        except StoreError as error:
            error.add_note(f"What is not kept is in {folder} on this machine.")
            raise
    shutil.rmtree(folder, ignore_errors=True)


def _at_the_end(
    flush: Callable[[], None], folder: Path, note: Callable[[str], None]
) -> None:
    """Keeps what an error leaves; another one must not hide it."""
    try:
        flush()
    except OSError as error:
        note(f"What was written last is in {folder} on this machine alone: {error}")


@dataclass(frozen=True)
class _State:
    """By which it shows whether a file has changed."""

    number: int
    """Of the file in its file system; a file that is replaced gets another."""
    size: int
    changed_ns: int


def _state(path: Path) -> _State:
    found = path.stat()
    return _State(found.st_ino, found.st_size, found.st_mtime_ns)


def _grown(before: _State, now: _State) -> bool:
    return now.number == before.number and now.size > before.size
