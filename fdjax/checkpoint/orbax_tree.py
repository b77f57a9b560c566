"""Arrays of an Orbax checkpoint, read one at a time or in part."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import tensorstore as ts

from fdjax.errors import CheckpointError, DamagedCheckpointError, StoreError
from fdjax.objects import Place, remote

__all__ = ["CHUNK_BYTES", "STATE", "OrbaxTree"]

Keys = tuple[str, ...]
Index = tuple[int | slice, ...]

STATE = "state"
"""Subfolder of a checkpoint in which its arrays are."""

CHUNK_BYTES = 64_000_000
"""Part of an array that we compress, and read, by itself."""

_UNREAD = re.compile(
    "UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|PERMISSION_DENIED|"
    "UNAUTHENTICATED|ABORTED|CANCELLED"
)
"""How TensorStore begins to say that a store would not give what may well be whole."""

# Devices ask for their parts of an array one after another; the cache keeps the chunks
# that they share from being read for each.
_FRUGAL = {
    "cache_pool": {"total_bytes_limit": 2 * CHUNK_BYTES},
    "data_copy_concurrency": {"limit": 2},
    "file_io_concurrency": {"limit": 2},
}


class OrbaxTree:
    """A tree of arrays on a disk, or in an object store.

    Orbax restores whole arrays and all of them; TensorStore, in whose format it stores
    them, reads parts.
    """

    def __init__(self, folder: Place, *, remedy: str = "write it again"):
        """Finds out what is there, and reads no array.

        Args:
          folder: of the checkpoint.
          remedy: what to do, in an error's words, if it is damaged.

        Raises:
          DamagedCheckpointError: there is no checkpoint, or a damaged one.
          StoreError: the object store that it is in does not answer.
        """
        self.folder = folder if remote(folder) else folder.absolute()
        self._remedy = remedy
        self._store = {
            "driver": "ocdbt",
            "base": _base(self.folder),
        }
        # Of its own: a cache that outlives the tree serves a folder's former content.
        self._context = ts.Context(_FRUGAL)
        self._arrays: dict[Keys, ts.TensorStore] = {}
        with self._reading("its list of arrays"):
            keys = ts.KvStore.open(self._store, context=self._context).result().list()
            self.names = {key.decode().rpartition("/")[0] for key in keys.result()}
            """Paths of the arrays, keys joined by dots."""
            if not self.names:
                raise FileNotFoundError("none")

    def holds(self, key: str) -> bool:
        """Whether there are arrays under a key."""
        return any(name.split(".")[0] == key for name in self.names)

    def dtype(self, keys: Keys) -> str:
        """Type of an array."""
        return self._open(keys).dtype.name

    def shape(self, keys: Keys) -> tuple[int, ...] | None:
        """Shape of an array; None where there is none."""
        return self._open(keys).shape if ".".join(keys) in self.names else None

    def describe(self, keys: Keys) -> str:
        """Type and shape of an array, such as float32[4, 4]."""
        return f"{self.dtype(keys)}{list(self.shape(keys) or ())}"

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
          DamagedCheckpointError: its files are missing or damaged.
        """
        with self._reading("/".join(keys)):
            return self._open(keys)[(*index, ...)].read().result()

    def load(
        self, keys: Keys, sharding: Any, dtype: Any, index: Index = ()
    ) -> jax.Array:
        """An array, or its entry `index`, on a mesh; processes read their own parts.

        The host holds one device's part at a time.
        """
        shape = (self.shape(keys) or ())[len(index) :]
        parts: list[jax.Array] = []
        before: tuple[Index | None, Any] = (None, None)
        for device, part in sharding.addressable_devices_indices_map(shape).items():
            if before[0] != part:
                read = self.read(keys, (*index, *(part or ())))
                before = (part, read.astype(dtype, copy=False))
            parts.append(jax.device_put(before[1], device))
        return jax.make_array_from_single_device_arrays(shape, sharding, parts)

    def _open(self, keys: Keys) -> ts.TensorStore:
        if keys not in self._arrays:
            spec = {
                "driver": "auto",
                "kvstore": {**self._store, "path": ".".join(keys) + "/"},
            }
            with self._reading("/".join(keys)):
                opened = ts.open(spec, context=self._context, read=True)
                self._arrays[keys] = opened.result()
        return self._arrays[keys]

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError, KeyError) as error:
            # TensorStore appends where in its own source the error arose.
            cause = str(error).partition(" [source locations")[0]
            if _UNREAD.match(cause):
                raise StoreError(
                    f"expected the object store to give {what} of {self.folder}, got "
                    f"{cause}; the same command goes on once it does"
                ) from error
            raise DamagedCheckpointError(
                f"Expected a whole Orbax checkpoint at {self.folder}, got {cause} for "
                f"{what}; {self._remedy}."
            ) from error


def _base(folder: Place) -> dict[str, Any]:
    """Where TensorStore finds the files of a checkpoint."""
    if not remote(folder):
        return {"driver": "file", "path": f"{folder}/"}
    bucket, _, path = str(folder).removeprefix("gs://").partition("/")
    return {"driver": "gcs", "bucket": bucket, "path": f"{path}/"}
