"""Folders that are whole or absent, on a disk and in an object store."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from etils import epath

from fdjax.objects.address import Place, local_folder, remote
from fdjax.objects.store import (
    children,
    delete,
    download,
    exists,
    read,
    upload,
    versions,
)

__all__ = [
    "WEIGHTY",
    "fetched",
    "holds",
    "is_whole",
    "on_disk",
    "publish",
    "read_bytes",
    "there",
]

WEIGHTY = (
    *("checkpoints", "policies", "adapters", "exports", "journal"),
    *("profile", "dumps", "tensorboard"),
)
"""Folders of a run that are large, and that nobody reads to go on or to report."""

_LAST = ("config.json", "adapter_config.json")
"""Files without which nobody takes a folder for a model: they go last."""


def read_bytes(path: Place) -> bytes:
    """The content of a file or an object.

    Raises:
      FileNotFoundError: there is none.
      StoreError: the store refuses, or does not answer.
    """
    return read(path) if remote(path) else path.read_bytes()


def there(path: Place) -> bool:
    """Whether there is a file, or an object of this very name.

    Raises:
      StoreError: the store refuses, or does not answer.
    """
    return exists(path) if remote(path) else path.exists()


def publish(folder: Path, target: Place) -> None:
    """Puts a finished folder where it is to be; it is whole there, or absent.

    On a disk it is renamed. A store has its files one after the other, the one by which
    it is known last, and the folder goes.

    Args:
      folder: of a model, or of adapters.
      target: has none, or part of one.
    """
    if not remote(target):
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
        return
    delete(target)
    files = sorted(
        (path for path in folder.rglob("*") if path.is_file()),
        key=lambda path: (path.name in _LAST, str(path)),
    )
    for path in files:
        upload(path, target / path.relative_to(folder).as_posix())
    shutil.rmtree(folder)


def withdraw(target: Place) -> None:
    """Takes away what was published there, if anything was."""
    if not remote(target):
        shutil.rmtree(target, ignore_errors=True)
        return
    for name in _LAST:
        delete(target / name)
    delete(target)


def holds(folder: Place) -> bool:
    """Whether there is anything in a folder.

    Raises:
      StoreError: the store refuses, or does not answer.
    """
    return bool(children(folder)) if remote(folder) else folder.exists()


def is_whole(target: Place) -> bool:
    """Whether what was published is there."""
    if remote(target):
        return any(exists(target / name) for name in _LAST)
    return target.exists()


@contextmanager
def on_disk(run: Place) -> Iterator[Path]:
    """A run's folder with the files that a report is made of.

    Of an address it is a copy on this machine, and what is written into it is uploaded
    when the block ends well.

    Raises:
      StoreError: the store refuses, or does not answer.
    """
    if not remote(run):
        yield Path(run)
        return
    with TemporaryDirectory(prefix="fdjax-") as temporary:
        folder = Path(temporary) / run.name
        folder.mkdir()
        download(run, folder, leave_out=WEIGHTY)
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        yield folder
        for path in folder.rglob("*"):
            if path.is_file() and before.get(path) != path.stat().st_mtime_ns:
                upload(path, run / path.relative_to(folder).as_posix())


def fetched(address: epath.Path) -> Path:
    """A copy of what is below an address, in the user's cache.

    What was fetched before is taken where it is the same still.

    Raises:
      StoreError: the store refuses, or does not answer.
    """
    about = json.dumps(sorted(versions(address).items())).encode()
    version = hashlib.sha256(about).hexdigest()[:16]
    folder = local_folder(address).with_name(f"{address.name}@{version}")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as temporary:
            partly = Path(temporary) / "model"
            download(address, partly)
            with suppress(OSError):
                # Another process may have been first.
                partly.rename(folder)
    return folder
