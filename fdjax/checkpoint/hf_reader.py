"""Reading the weights of a Hugging Face folder, a part of a tensor at a time."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from fdjax.checkpoint.names import Weight, weights
from fdjax.errors import CheckpointError
from fdjax.model import ModelConfig

__all__ = ["INDEX", "SINGLE", "HfReader", "read_json"]

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""Floating types of safetensors to ours."""

_UNREAD = "rotary_emb.inv_freq"
"""End of the names of tensors that old Llama checkpoints hold for no one."""

_HEAD, _TABLE = "lm_head.weight", "model.embed_tokens.weight"

_BLOCK_BYTES = 64_000_000
"""Part of a tensor that is read at once."""


class HfReader:
    """The weights of a folder with config.json and safetensors files.

    Opening it reads the files' headers and checks every name, shape and type against
    the model. A file is open only while a part of it is read, so that memory holds
    this part and nothing else.
    """

    def __init__(self, folder: Path, config: ModelConfig):
        """Opens the folder.

        Raises:
          CheckpointError: a file is missing or damaged; a tensor is missing, unknown,
            or has another shape or type than the model's.
        """
        self.folder = folder
        self.weights = weights(config)
        self._files = _weight_map(folder)
        self._headers = self._read_headers()
        self._check(tied=config.tie_word_embeddings)

    def dtype(self, weight: Weight) -> str:
        """Type in which a weight is stored."""
        return _DTYPES[self._headers[weight.tensor][1]]

    def read(self, weight: Weight, index: tuple[slice, ...] = ()) -> np.ndarray:
        """A weight, or its part `index`, in our order of axes."""
        index = index or tuple(slice(0, size) for size in weight.shape)
        return weight.from_hf(partial(self._part, weight.tensor), index)

    def load(self, weight: Weight, sharding: Any, dtype: Any) -> jax.Array:
        """A weight on a mesh; each process reads its own parts only."""
        return jax.make_array_from_callback(
            weight.shape,
            sharding,
            lambda index: self.read(weight, index or ()).astype(dtype),
        )

    def _part(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Part of a tensor, read in blocks: an open file's pages count as memory."""
        rows, columns = index[0], index[1:]
        sizes = [part.stop - part.start for part in index]
        dtype = jnp.dtype(_DTYPES[self._headers[name][1]])
        part = np.empty(sizes, dtype)
        step = max(1, _BLOCK_BYTES * sizes[0] // max(1, part.nbytes))
        for start in range(rows.start, rows.stop, step):
            stop = min(start + step, rows.stop)
            with self._open(self._files[name], name) as file:
                block = file.get_slice(name)[(slice(start, stop), *columns)]
            part[start - rows.start : stop - rows.start] = block
        return part

    @contextmanager
    def _open(self, path: Path, tensor: str | None = None) -> Iterator[Any]:
        try:
            with safe_open(path, framework="numpy") as file:
                yield file
        except (SafetensorError, OSError) as error:
            held = [name for name, file in self._files.items() if file == path]
            raise CheckpointError(
                f"Expected a whole safetensors file at {path}, which holds "
                f"{tensor or (held[0] + _more(held) if held else 'all tensors')}, got: "
                f"{error}; download it again."
            ) from error

    def _read_headers(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and type of every tensor; learns the file of each that has no index."""
        headers: dict[str, tuple[tuple[int, ...], str]] = {}
        for path in sorted(set(self._files.values())) or [self.folder / SINGLE]:
            with self._open(path) as file:
                for name in sorted(file.keys()):
                    tensor = file.get_slice(name)
                    headers[name] = (tuple(tensor.get_shape()), tensor.get_dtype())
                    self._files.setdefault(name, path)
        return headers

    def _check(self, *, tied: bool) -> None:
        wanted = {weight.tensor: weight for weight in self.weights}
        missing = [name for name in wanted if name not in self._headers]
        if missing:
            raise CheckpointError(
                f"Expected the tensor {missing[0]} in {self.folder}, got none"
                f"{_more(missing)}; config.json and the weights do not belong together."
            )
        extra = [
            name
            for name in self._headers
            if name not in wanted and not name.endswith(_UNREAD)
        ]
        if tied and _HEAD in extra:
            extra.remove(_HEAD)
            self._check_tied()
        if extra:
            shape, kind = self._headers[extra[0]]
            raise CheckpointError(
                f"Expected only tensors of the model in {self.folder}, got {extra[0]} "
                f"({kind}, {list(shape)}){_more(extra)}; of quantised weights take the "
                "checkpoint that they were made from, adapters (LoRA) merge first."
            )
        for name, weight in wanted.items():
            shape, kind = self._headers[name]
            if shape != weight.tensor_shape:
                raise CheckpointError(
                    f"Expected {name} in {self.folder} with the shape "
                    f"{list(weight.tensor_shape)} that config.json gives it, got "
                    f"{list(shape)}; the two do not belong together."
                )
            if kind not in _DTYPES:
                raise CheckpointError(
                    f"Expected {name} in {self.folder} as one of {', '.join(_DTYPES)}, "
                    f"got {kind}; of quantised weights take the checkpoint that they "
                    "were made from."
                )

    def _check_tied(self) -> None:
        """A head beside tied embeddings must be a copy of them."""
        same = self._headers[_HEAD] == self._headers[_TABLE]
        rows, width = self._headers[_TABLE][0]
        step = max(1, _BLOCK_BYTES // (4 * width))
        for start in range(0, rows if same else 0, step):
            part = (slice(start, min(start + step, rows)), slice(0, width))
            head, table = (self._part(name, part) for name in (_HEAD, _TABLE))
            same = same and head.tobytes() == table.tobytes()
        if not same:
            raise CheckpointError(
                f"Expected {_HEAD} in {self.folder} to equal {_TABLE}, because "
                "config.json says tie_word_embeddings, got another; set "
                "tie_word_embeddings to false in config.json to keep it."
            )


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
      CheckpointError: there is no such file, or it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"Expected a JSON file at {path}, got: {error}; download it again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"Expected an object in {path}, got {type(content).__name__}; download it "
            "again."
        )
    return content


def _weight_map(folder: Path) -> dict[str, Path]:
    """The file of each tensor as the index says; empty for a single file."""
    if (folder / INDEX).exists():
        names = read_json(folder / INDEX).get("weight_map")
        if not isinstance(names, Mapping) or not names:
            raise CheckpointError(
                f"Expected a weight_map in {folder / INDEX}, got none; download it "
                "again."
            )
        outside = [name for name in names.values() if Path(str(name)).name != name]
        if outside:
            raise CheckpointError(
                f"Expected names of files beside it in {folder / INDEX}, got "
                f"{outside[0]!r}; download it again."
            )
        files = {str(name): folder / str(file) for name, file in names.items()}
        absent = [name for name, path in files.items() if not path.exists()]
        if absent:
            raise CheckpointError(
                f"Expected the file {files[absent[0]].name} in {folder}, which holds "
                f"{absent[0]}{_more(absent)}, got none; download it."
            )
        return files
    if (folder / SINGLE).exists():
        return {}
    raise CheckpointError(
        f"Expected {SINGLE} or {INDEX} in {folder}, got "
        f"{sorted(path.name for path in folder.iterdir())}; weights in another format "
        "can be saved as safetensors by transformers' save_pretrained."
    )


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
