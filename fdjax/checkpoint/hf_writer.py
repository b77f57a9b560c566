"""Writing weights as the safetensors files of a Hugging Face folder."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fdjax.checkpoint.hf_folder import INDEX, SINGLE
from fdjax.checkpoint.names import Weight

__all__ = ["HfWriter"]


class HfWriter:
    """Writes tensors to files of a limited size; more than one get an index.

    At most one file's tensors are in memory.
    """

    def __init__(self, folder: Path, *, max_shard_bytes: int):
        self.folder = folder
        self._limit = max_shard_bytes
        self._pending: dict[str, np.ndarray] = {}
        self._size = self._total = 0
        self._parts: list[tuple[Path, list[str]]] = []

    def write(self, weight: Weight, array: np.ndarray) -> None:
        """Adds a weight in our order of axes; a full file is written first."""
        if self._pending and self._size + array.nbytes > self._limit:
            self._flush()
        self._pending[weight.tensor] = weight.to_hf(array)
        self._size += array.nbytes
        self._total += array.nbytes

    def close(self) -> None:
        """Writes what is left and the index, and gives the files their names."""
        self._flush()
        count = len(self._parts)
        if count == 1:
            self._parts[0][0].rename(self.folder / SINGLE)
            return
        weight_map: dict[str, str] = {}
        for number, (path, names) in enumerate(self._parts, start=1):
            final = f"model-{number:05d}-of-{count:05d}.safetensors"
            path.rename(self.folder / final)
            weight_map |= dict.fromkeys(names, final)
        content = {
            "metadata": {"total_size": self._total},
            "weight_map": dict(sorted(weight_map.items())),
        }
        (self.folder / INDEX).write_text(json.dumps(content, indent=2) + "\n")

    def _flush(self) -> None:
        if not self._pending:
            return
        path = self.folder / f"part-{len(self._parts) + 1:05d}.safetensors"
        save_file(self._pending, path, metadata={"format": "pt"})
        path.chmod(0o644)  # safetensors leaves files that only their owner can read
        self._parts.append((path, list(self._pending)))
        self._pending, self._size = {}, 0
