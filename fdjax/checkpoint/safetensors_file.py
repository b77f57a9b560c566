"""One safetensors file, written a tensor at a time."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from fdjax.files import naming

__all__ = ["Kind", "SafetensorsFile"]

Kind = tuple[str, tuple[int, ...]]
"""Type and shape of a tensor."""

_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


class SafetensorsFile:
    """A file whose tensors are known beforehand and come one after the other.

    The format begins with where each tensor lies, so that each goes to its place and
    none is kept. Wide types lie first, as the library of that name has them: every
    tensor is aligned.
    """

    def __init__(self, path: Path, tensors: Mapping[str, Kind]):
        """Writes the header.

        Args:
          path: the file, which does not exist yet.
          tensors: the name of each and what it is.
        """
        self._path = path
        self._places: dict[str, int] = {}
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, (dtype, shape) in sorted(tensors.items(), key=_order):
            self._places[name] = end
            end += math.prod(shape) * jnp.dtype(dtype).itemsize
            header[name] = {
                "dtype": _NAMES[dtype],
                "shape": shape,
                "data_offsets": [self._places[name], end],
            }
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._begin = 8 + len(text)
        with naming(path), path.open("xb") as file:
            file.write(len(text).to_bytes(8, "little") + text)

    def write(self, name: str, array: np.ndarray) -> None:
        """Writes a tensor to its place; with the last one the file is on the disk."""
        with naming(self._path), self._path.open("r+b") as file:
            file.seek(self._begin + self._places.pop(name))
            file.write(np.ascontiguousarray(array).view(np.uint8).data)
            if not self._places:
                file.flush()
                os.fsync(file.fileno())


def _order(tensor: tuple[str, Kind]) -> tuple[int, str]:
    name, (dtype, _) = tensor
    return -jnp.dtype(dtype).itemsize, name
