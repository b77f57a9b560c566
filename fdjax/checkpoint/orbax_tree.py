"""Arrays of an Orbax checkpoint, read one at a time or in part."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore as ts

from fdjax.errors import CheckpointError

__all__ = ["CHUNK_BYTES", "STATE", "OrbaxTree"]

Keys = tuple[str, ...]
Index = tuple[int | slice, ...]

STATE = "state"
"""Subfolder of a checkpoint in which its arrays are."""

CHUNK_BYTES = 64_000_000
"""Part of an array that we compress, and read, by itself."""

# Devices ask for their parts of an array one after another; the cache keeps the chunks
# that they share from being read for each.
_FRUGAL = ts.Context(
    {
        "cache_pool": {"total_bytes_limit": 2 * CHUNK_BYTES},
        "data_copy_concurrency": {"limit": 2},
        "file_io_concurrency": {"limit": 2},
    }
)


class OrbaxTree:
    """A tree of arrays on disk.

    Orbax restores whole arrays and all of them; TensorStore, in whose format it stores
    them, reads parts.
    """

    def __init__(self, folder: Path):
        """Finds out what is there, and reads no array.

        Raises:
          CheckpointError: there is no checkpoint, or a damaged one.
        """
        self.folder = folder.absolute()
        self._store = {
            "driver": "ocdbt",
            "base": {"driver": "file", "path": f"{self.folder}/"},
        }
        self._arrays: dict[Keys, ts.TensorStore] = {}
        with self._reading("its list of arrays"):
            keys = ts.KvStore.open(self._store, context=_FRUGAL).result().list()
            self._names = {key.decode().rpartition("/")[0] for key in keys.result()}
            if not self._names:
                raise FileNotFoundError("none")

    def dtype(self, keys: Keys) -> str:
        """Type of an array."""
        return self._open(keys).dtype.name

    def shape(self, keys: Keys) -> tuple[int, ...] | None:
        """Shape of an array; None where there is none."""
        return self._open(keys).shape if ".".join(keys) in self._names else None

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

    def read(self, keys: Keys, index: Index = ()) -> np.ndarray:
        """An array, or its part `index`, in host memory.

        Raises:
          CheckpointError: it is damaged.
        """
        with self._reading("/".join(keys)):
            return self._open(keys)[(*index, ...)].read().result()

    def load(
        self, keys: Keys, sharding: Any, dtype: Any, index: Index = ()
    ) -> jax.Array:
        """An array, or its entry `index`, on a mesh; processes read their own parts."""
        shape = self.shape(keys) or ()
        return jax.make_array_from_callback(
            shape[len(index) :],
            sharding,
            lambda part: self.read(keys, (*index, *(part or ()))).astype(dtype),
        )

    def _open(self, keys: Keys) -> ts.TensorStore:
        if keys not in self._arrays:
            spec = {
                "driver": "auto",
                "kvstore": {**self._store, "path": ".".join(keys) + "/"},
            }
            with self._reading("/".join(keys)):
                opened = ts.open(spec, context=_FRUGAL, read=True)
                self._arrays[keys] = opened.result()
        return self._arrays[keys]

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError, KeyError) as error:
            raise CheckpointError(
                f"Expected an Orbax checkpoint at {self.folder}, got {error} for "
                f"{what}; write it again."
            ) from error
