"""Reading the weights of a Hugging Face folder, a part of a tensor at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from fdjax.checkpoint.hf_folder import and_more, shards
from fdjax.checkpoint.names import Weight, weights
from fdjax.errors import CheckpointError
from fdjax.model import ModelConfig

__all__ = ["HfReader"]

_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""Floating types of safetensors to ours."""

_UNREAD = "rotary_emb.inv_freq"
"""End of the names of tensors that old Llama checkpoints hold for no one."""

_BASE = "model."
"""What a causal language model puts before the names of its base model's tensors."""

_HEAD, _TABLE = "lm_head.weight", "model.embed_tokens.weight"

_WRAPPERS = {
    "base_model.": "of an adapter (PEFT): merge it with merge_and_unload",
    "base_layer": "of an adapter (PEFT): merge it with merge_and_unload",
    "_orig_mod.": "of torch.compile: take the model's own state dict",
    "module.": "of a parallel wrapper: take the model's own state dict",
}
"""Parts of names that others put around the model's, and how to be rid of them."""

_BLOCK_BYTES = 64_000_000
"""Part of a tensor that is read at once."""


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    """A tensor on disk."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str
    """Type, as safetensors calls it."""


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
            there twice, or has another shape or type than the model's.
        """
        self.folder = folder
        self.weights = weights(config)
        self._tied = config.tie_word_embeddings
        self._tensors = self._find(self._stored())
        self._check()

    def dtype(self, weight: Weight) -> str:
        """Type in which a weight is stored."""
        return _DTYPES[self._tensors[weight.tensor].dtype]

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
        stored = self._tensors[name]
        rows, columns = index[0], index[1:]
        sizes = [part.stop - part.start for part in index]
        part = np.empty(sizes, jnp.dtype(_DTYPES[stored.dtype]))
        step = max(1, _BLOCK_BYTES * sizes[0] // max(1, part.nbytes))
        for start in range(rows.start, rows.stop, step):
            stop = min(start + step, rows.stop)
            with _open(stored.file, [stored.name]) as file:
                block = file.get_slice(stored.name)[(slice(start, stop), *columns)]
            part[start - rows.start : stop - rows.start] = block
        return part

    def _stored(self) -> Iterator[_Tensor]:
        """All tensors of all files, by the files' own headers."""
        for path, names in shards(self.folder).items():
            with _open(path, names) as file:
                for name in sorted(file.keys()):
                    tensor = file.get_slice(name)
                    yield _Tensor(
                        name=name,
                        file=path,
                        shape=tuple(tensor.get_shape()),
                        dtype=tensor.get_dtype(),
                    )

    def _find(self, stored: Iterator[_Tensor]) -> dict[str, _Tensor]:
        """Tensors by the model's names for them, unknown ones by their own.

        Names may lack the base model's prefix or have it once more than the model, as
        for transformers (`rename_source_key`).
        """
        known = {weight.tensor for weight in self.weights} | {_HEAD}
        found: dict[str, _Tensor] = {}
        for tensor in stored:
            spellings = (tensor.name.removeprefix(_BASE), _BASE + tensor.name)
            name = next((name for name in spellings if name in known), tensor.name)
            before = found.setdefault(name, tensor)
            if before is not tensor and name in known:
                raise CheckpointError(
                    f"Expected {name} once in {self.folder}, got {before.name} in "
                    f"{before.file.name} and {tensor.name} in {tensor.file.name}; keep "
                    "the one that is meant."
                )
        # Tied tensors may be stored under either name (`tie_weights`).
        if self._tied and _HEAD in found:
            found.setdefault(_TABLE, found[_HEAD])
        return found

    def _check(self) -> None:
        wanted = {weight.tensor: weight for weight in self.weights}
        extra = [
            name
            for name in self._tensors
            if name not in wanted and not name.endswith(_UNREAD)
        ]
        if self._tied and _HEAD in extra:
            extra.remove(_HEAD)
        missing = [name for name in wanted if name not in self._tensors]
        if missing:
            raise CheckpointError(
                f"Expected the tensor {missing[0]} in {self.folder}, got none"
                f"{and_more(missing)}; {_remedy(missing, extra)}."
            )
        if extra:
            tensor = self._tensors[extra[0]]
            raise CheckpointError(
                f"Expected only tensors of the model in {self.folder}, got {extra[0]} "
                f"({tensor.dtype}, {list(tensor.shape)}){and_more(extra)}; of "
                "quantised weights take the checkpoint that they were made from, "
                "adapters (LoRA) merge first."
            )
        for name, weight in wanted.items():
            tensor = self._tensors[name]
            if tensor.shape != weight.tensor_shape:
                raise CheckpointError(
                    f"Expected {tensor.name} in {self.folder} with the shape "
                    f"{list(weight.tensor_shape)} that config.json gives it, got "
                    f"{list(tensor.shape)}; the two do not belong together."
                )
            if tensor.dtype not in _DTYPES:
                raise CheckpointError(
                    f"Expected {tensor.name} in {self.folder} as one of "
                    f"{', '.join(_DTYPES)}, got {tensor.dtype}; "
                    + (
                        "save the weights in one of these."
                        if tensor.dtype == "F64"
                        else "of quantised weights take the checkpoint that they were "
                        "made from."
                    )
                )
        if self._tied and _HEAD in self._tensors:
            self._check_tied()

    def _check_tied(self) -> None:
        """A head beside tied embeddings must be a copy of them.

        transformers would take the two as they are and leave them untied.
        """
        head, table = self._tensors[_HEAD], self._tensors[_TABLE]
        same = (head.shape, head.dtype) == (table.shape, table.dtype)
        rows, width = table.shape
        step = max(1, _BLOCK_BYTES // (4 * width))
        for start in range(0, rows if same and head is not table else 0, step):
            part = (slice(start, min(start + step, rows)), slice(0, width))
            ours, theirs = (self._part(name, part) for name in (_HEAD, _TABLE))
            same = same and ours.tobytes() == theirs.tobytes()
        if not same:
            raise CheckpointError(
                f"Expected {_HEAD} in {self.folder} to equal {_TABLE}, because "
                "config.json says tie_word_embeddings, got another; set "
                "tie_word_embeddings to false in config.json to keep it."
            )


@contextmanager
def _open(path: Path, names: list[str]) -> Iterator[Any]:
    """A safetensors file, which holds the tensors `names`, as far as they are known."""
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError) as error:
        held = names[0] + and_more(names) if names else "all tensors"
        raise CheckpointError(
            f"Expected a whole safetensors file at {path}, which holds {held}, got: "
            f"{error}; download it again."
        ) from error


def _remedy(missing: list[str], extra: list[str]) -> str:
    """What to do about missing tensors, beside unknown ones."""
    if missing == [_HEAD]:
        return (
            "set tie_word_embeddings to true in config.json if the head is the "
            "embedding table, or download the file that holds it"
        )
    near = get_close_matches(missing[0], extra, n=1)
    if not near:
        return "config.json and the weights do not belong together"
    wrapper = next((part for part in _WRAPPERS if part in near[0]), None)
    return f"the nearest is {near[0]}" + (
        f", {_WRAPPERS[wrapper]}, and save it with save_pretrained"
        if wrapper
        else ": config.json and the weights do not belong together"
    )
