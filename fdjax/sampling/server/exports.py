"""Weights in folders that a server reads: whole under their names, old ones dropped."""

import logging
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fdjax.errors import CheckpointError
from fdjax.sampling.sampler import SamplingError
from fdjax.sampling.server.dialect import Served

__all__ = ["Exports"]

_LOG = logging.getLogger(__name__)


class Exports:
    """The folders of one sampler in a folder that others may use, too."""

    def __init__(
        self, folder: Path, seen_as: str, export: Callable[[Any, Path], None]
    ) -> None:
        """Nothing is written yet.

        Args:
          folder: where to; made if it is not there.
          seen_as: the server's name of it; empty where it is the same.
          export: writes parameters as a Hugging Face folder that does not exist yet.
        """
        self._folder = folder.absolute()
        self._seen_as = seen_as or str(self._folder)
        self._export = export
        self._written: list[Path] = []

    def write(self, params: Any, version: int) -> Served:
        """Exports parameters under a name that no other export has.

        The folder appears as a whole: a server that is told its name finds all files.

        Raises:
          SamplingError: it could not be written; nothing is left of it.
        """
        mark = f"{version}-{secrets.token_hex(4)}"
        target = self._folder / f"weights-{mark}"
        partly = _partly(target)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._export(params, partly)
            partly.rename(target)
        except BaseException as error:
            _remove(partly)
            # What a full disk looks like through `save_pretrained`, and without it.
            if isinstance(error, CheckpointError | OSError):
                raise SamplingError(
                    f"expected to export the weights of version {version} to "
                    f"{self._folder}, which holds two versions at a time, got {error}"
                ) from error
            raise
        self._written.append(target)
        path = os.path.join(self._seen_as, target.name)
        return Served(path=path, mark=mark, version=version)

    def drop(self, keep: int) -> None:
        """Removes all but the last ones."""
        gone = self._written[: len(self._written) - keep]
        for target in gone:
            _remove(target)
        self._written = self._written[len(gone) :]


def _partly(target: Path) -> Path:
    return target.with_name(f".{target.name}.partly")


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        _LOG.warning("%s cannot be removed: %s", path, error)
