"""Writing weights as the safetensors files of a Hugging Face folder."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from fdjax.checkpoint.hf_folder import INDEX, SINGLE
from fdjax.checkpoint.names import Weight
from fdjax.checkpoint.safetensors_file import Kind, SafetensorsFile

__all__ = ["HfWriter"]


class HfWriter:
    """Writes tensors to files of a limited size; more than one get an index.

    Each goes to its place in its file at once: none is kept in memory.
    """

    def __init__(
        self,
        folder: Path,
        weights: Sequence[tuple[Weight, str]],
        *,
        max_shard_bytes: int,
    ):
        """Lays out the files.

        Args:
          folder: of the model.
          weights: all that will come, with their types.
          max_shard_bytes: size of a file at most, where a tensor fits into it.
        """
        self._folder = folder
        self._total = 0
        self._weight_map: dict[str, str] = {}
        self._files: dict[str, SafetensorsFile] = {}
        parts = self._parts(weights, max_shard_bytes)
        for number, part in enumerate(parts, start=1):
            file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
            name = SINGLE if len(parts) == 1 else file
            self._weight_map |= dict.fromkeys(part, name)
            self._files[name] = SafetensorsFile(folder / name, part)

    def write(self, weight: Weight, array: np.ndarray) -> None:
        """Adds a weight in our order of axes."""
        file = self._files[self._weight_map[weight.tensor]]
        file.write(weight.tensor, weight.to_hf(array))

    def close(self) -> None:
        """Writes the index."""
        if len(self._files) == 1:
            return
        content = {
            "metadata": {"total_size": self._total},
            "weight_map": dict(sorted(self._weight_map.items())),
        }
        (self._folder / INDEX).write_text(json.dumps(content, indent=2) + "\n")

    def _parts(
        self, weights: Sequence[tuple[Weight, str]], limit: int
    ) -> list[dict[str, Kind]]:
        """The tensors of each file."""
        parts: list[dict[str, Kind]] = [{}]
        size = 0
        for weight, dtype in weights:
            own = math.prod(weight.shape) * jnp.dtype(dtype).itemsize
            if parts[-1] and size + own > limit:
                parts.append({})
                size = 0
            parts[-1][weight.tensor] = (dtype, weight.tensor_shape)
            size += own
            self._total += own
        return parts
