"""A model's weights as an Orbax checkpoint of their own, each layer's arrays apart."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint.experimental import v1 as ocp

from fdjax.checkpoint.names import Weight, weights
from fdjax.checkpoint.orbax_tree import CHUNK_BYTES, STATE, OrbaxTree
from fdjax.checkpoint.paths import nested
from fdjax.model import ModelConfig

__all__ = ["OrbaxReader", "OrbaxWriter"]

_PIECE_BYTES = 128_000_000
"""Arrays that are collected before they are written."""


class OrbaxWriter:
    """Writes weights to one Orbax checkpoint, never all of them in memory.

    Keys of its tree are those of `params`, with layers by number: layers, 0, mlp, up.
    """

    def __init__(self, folder: Path):
        self._folder = str(folder.absolute())
        self._pending: dict[str, Any] = {}
        self._size = 0

    def write(self, weight: Weight, array: np.ndarray) -> None:
        """Adds a weight in our order of axes."""
        nested(weight.keys, np.ascontiguousarray(array), self._pending)
        self._size += array.nbytes
        if self._size > _PIECE_BYTES:
            self._flush()

    def close(self) -> None:
        """Writes what is left; the checkpoint is there only from now on."""
        self._flush()
        ocp.partial.finalize(self._folder)

    def _flush(self) -> None:
        if self._pending:
            with _frugal():
                ocp.partial.save(self._folder, self._pending)
        self._pending, self._size = {}, 0


def _frugal() -> ocp.Context:
    """Settings under which a save needs little memory beyond its arrays."""
    context = ocp.Context()
    context.array.saving.storage_options.chunk_byte_size = CHUNK_BYTES
    context.memory.write_concurrent_bytes = 2 * CHUNK_BYTES
    context.memory.deepcopy_host_arrays = False
    return context


class OrbaxReader:
    """The weights that `OrbaxWriter` wrote."""

    def __init__(self, folder: Path, config: ModelConfig):
        """Opens the checkpoint.

        Raises:
          CheckpointError: it is incomplete, or of another model.
        """
        self.weights = weights(config)
        self._tree = OrbaxTree(folder / STATE)
        for weight in self.weights:
            self._tree.check(weight.keys, weight.shape)

    def dtype(self, weight: Weight) -> str:
        """Type in which a weight is stored."""
        return self._tree.dtype(weight.keys)

    def read(self, weight: Weight, index: tuple[slice, ...] = ()) -> np.ndarray:
        """A weight, or its part `index`, in host memory."""
        return self._tree.read(weight.keys, index)

    def load(self, weight: Weight, sharding: Any, dtype: Any) -> jax.Array:
        """A weight on a mesh; each process reads its own parts only."""
        return self._tree.load(weight.keys, sharding, dtype)
