"""Arrays of an Orbax checkpoint, read one at a time."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from fdjax.checkpoint.paths import find, nested
from fdjax.errors import CheckpointError

__all__ = ["OrbaxTree"]

Keys = tuple[str, ...]


class OrbaxTree:
    """A tree of arrays on disk."""

    def __init__(self, folder: Path):
        """Reads what is there, but no array.

        Raises:
          CheckpointError: there is no checkpoint, or an unfinished one.
        """
        self.folder = folder.absolute()
        self._orbax: Any = ocp.PyTreeCheckpointHandler(restore_concurrent_gb=1)
        try:
            found = self._orbax.metadata(self.folder)
        except (ValueError, OSError, KeyError) as error:
            raise self._unreadable(error) from error
        if found is None:
            raise self._unreadable("nothing")
        self._metadata: Any = found.tree

    def dtype(self, keys: Keys) -> str:
        """Type of an array."""
        return str(find(self._metadata, keys).dtype)

    def shape(self, keys: Keys) -> tuple[int, ...] | None:
        """Shape of an array; None where there is none."""
        found = find(self._metadata, keys)
        return None if found is None else tuple(found.shape)

    def check(self, keys: Keys, shape: tuple[int, ...]) -> None:
        """Makes sure that there is such an array.

        Raises:
          CheckpointError: there is none, or it has another shape.
        """
        found = self.shape(keys)
        if found != shape:
            raise CheckpointError(
                f"Expected {'/'.join(keys)} with the shape {list(shape)} in "
                f"{self.folder}, got {'none' if found is None else list(found)}; "
                "config.json and the weights do not belong together."
            )

    def read(self, keys: Keys) -> np.ndarray:
        """An array in host memory."""
        return self._restore(keys, ocp.RestoreArgs(restore_type=np.ndarray))

    def load(self, keys: Keys, sharding: Any, dtype: Any) -> jax.Array:
        """An array on a mesh; each process reads its own parts only."""
        arguments = ocp.ArrayRestoreArgs(
            restore_type=jax.Array, sharding=sharding, dtype=dtype
        )
        return self._restore(keys, arguments)

    def _restore(self, keys: Keys, arguments: Any) -> Any:
        try:
            found = self._orbax.restore(
                self.folder,
                args=ocp.args.PyTreeRestore(
                    item=nested(keys, 0),
                    restore_args=nested(keys, arguments),
                    partial_restore=True,
                ),
            )
        except (ValueError, OSError, KeyError) as error:
            raise self._unreadable(f"{error} for {'/'.join(keys)}") from error
        return find(found, keys)

    def _unreadable(self, what: object) -> CheckpointError:
        return CheckpointError(
            f"Expected an Orbax checkpoint at {self.folder}, got {what}; write it "
            "again."
        )
