"""Weights in folders that a server reads: whole under their names, old ones dropped."""

import logging
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
        """
        mark = f"{version}-{secrets.token_hex(4)}"
        target = self._folder / f"weights-{mark}"
        self._written.append(target)
        self._folder.mkdir(parents=True, exist_ok=True)
        partly = _partly(target)
        self._export(params, partly)
        partly.rename(target)
        path = os.path.join(self._seen_as, target.name)
        return Served(path=path, mark=mark, version=version)

    def drop(self, keep: int) -> None:
        """Removes all but the last ones, what was written in part included."""
        gone = self._written[: len(self._written) - keep]
        for target in gone:
            for path in (target, _partly(target)):
                try:
                    shutil.rmtree(path)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    _LOG.warning("%s cannot be removed: %s", path, error)
        self._written = self._written[len(gone) :]


def _partly(target: Path) -> Path:
    return target.with_name(f".{target.name}.partly")
