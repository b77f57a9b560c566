"""A run's policies for others, written from its checkpoints while it trains."""

import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import jax

from fdjax.checkpoint.conversion import write_model
from fdjax.checkpoint.orbax_tree import STATE, OrbaxTree
from fdjax.checkpoint.paths import nested
from fdjax.checkpoint.peft_folder import write_adapters
from fdjax.checkpoint.run_reader import RunReader
from fdjax.checkpoint.store import CheckpointStore
from fdjax.errors import StoreError
from fdjax.model import LoRA, ModelConfig
from fdjax.model.lora import Adapter
from fdjax.objects import Place, is_whole, local_folder, publish, remote, walk

__all__ = ["Exports", "export_adapters", "export_policy"]

Progress = Callable[[int, int, str], None]
Write = Callable[[Place, Path, Progress], object]
"""Writes the checkpoint in a folder to a new one, and calls back between arrays."""

_logger = logging.getLogger(__name__)


class Exports:
    """Folders for others, each made of a checkpoint by a thread beside training.

    A folder is whole or absent, in an object store by its config.json. The thread reads
    the checkpoint, an array at a time: no step waits for it, no device takes part, and
    of several processes the first alone. There is one at a time. One that fails, or
    that is due while another is being written, is left out; `missing` counts it, and
    training goes on. So is one that would leave no room for the next checkpoint.
    """

    def __init__(self, folder: Place, write: Write):
        """Removes what a killed process left unfinished.

        Args:
          folder: in which the exports are; of an address, made on this machine first.
          write: makes one of a checkpoint.
        """
        self.missing = 0
        """Exports that were due and are not there, because they could not be made."""
        self._folder = folder
        self._disk = local_folder(folder)
        self._write = write
        self._thread: threading.Thread | None = None
        self._cancelled = threading.Event()
        if jax.process_index() == 0:
            for remains in self._disk.glob(".*"):
                shutil.rmtree(remains, ignore_errors=True)

    def begin(self, store: CheckpointStore, step: int, name: str) -> None:
        """Begins to export the checkpoint of a step, unless it is there.

        Args:
          store: holds the checkpoint, which may still be on its way to the disk.
          step: of the checkpoint.
          name: of the folder.
        """
        target = self._folder / name
        if jax.process_index() != 0 or self._there(target):
            return
        if self._thread is not None and self._thread.is_alive():
            self._miss(target, f"{self._thread.name} is still being written")
            return
        source = store.hold(step)
        self._cancelled.clear()
        self._thread = threading.Thread(
            name=name, target=self._export, args=(store, step, source, target)
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        """Waits for what was begun; after an error, cancels it."""
        if kind is not None:
            self.cancel()
        self.wait()

    def wait(self) -> None:
        """Blocks until what was begun is there, or has failed."""
        if self._thread is not None:
            self._thread.join()

    def cancel(self) -> None:
        """Ends what was begun at its next array; nothing of it stays."""
        self._cancelled.set()
        self.wait()

    def _export(
        self, store: CheckpointStore, step: int, source: Place, target: Place
    ) -> None:
        partly = self._disk / f".{target.name}.partly"
        try:
            store.wait()
            _require_room(source, self._disk)
            self._write(source, partly, self._check)
            publish(partly, target)
        except _CancelledError:
            _logger.info("%s was begun and is not finished.", target)
        except Exception as error:  # noqa: BLE001 - no export ends a training
            self._miss(target, str(error))
        finally:
            shutil.rmtree(partly, ignore_errors=True)
            store.release(step)

    def _there(self, target: Place) -> bool:
        try:
            return is_whole(target)
        except StoreError:
            # Made once more at worst.
            return False

    def _check(self, done: int, total: int, name: str) -> None:
        if self._cancelled.is_set():
            raise _CancelledError

    def _miss(self, target: Place, reason: str) -> None:
        self.missing += 1
        _logger.warning("Left out the export %s: %s", target, reason)


def _require_room(checkpoint: Place, folder: Path) -> None:
    """Refuses an export beside which the next checkpoint might not fit."""
    folder.mkdir(parents=True, exist_ok=True)
    if remote(checkpoint):
        needed = 2 * sum(walk(checkpoint).values())
    else:
        files = (path for path in Path(checkpoint).rglob("*") if path.is_file())
        needed = 2 * sum(path.stat().st_size for path in files)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"no room for {needed:,} bytes, twice the checkpoint, {free:,} are free"
        )


class _CancelledError(Exception):
    """The training that an export was made beside has ended."""


def export_policy(config: ModelConfig, description: Path) -> Write:
    """Writes the policy in Hugging Face's format, as config.json has its type.

    Args:
      config: of the model.
      description: folder of config.json, tokenizer and the rest, which are copied.
    """

    def write(step: Place, target: Path, progress: Progress) -> None:
        write_model(
            RunReader(step, config, "student"),
            target,
            to="hf",
            description=description,
            dtype=None,
            stored=False,
            progress=progress,
        )

    return write


def export_adapters(config: ModelConfig, lora: LoRA, base: str) -> Write:
    """Writes LoRA's adapters in PEFT's format; a checkpoint does not hold their base.

    Args:
      config: of the model.
      lora: their rank, scale and targets.
      base: folder or hub id of the model that they are on, as PEFT will look for it.
    """

    def write(step: Place, target: Path, progress: Progress) -> None:
        tree = OrbaxTree(step / STATE)
        adapters: dict[str, Any] = {}
        places = {tuple(name.split(".")[:-1]) for name in tree.names}
        for place in sorted(place for place in places if place[:1] == ("params",)):
            progress(0, 0, ".".join(place))
            a, b = (tree.read((*place, part)) for part in "ab")
            nested(place[1:], Adapter(a, b, lora.scale), adapters)
        write_adapters(adapters, config, target, lora=lora, base=base)

    return write
