"""From one kind of checkpoint to another, a weight at a time."""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import jax.numpy as jnp
import numpy as np

from fdjax.checkpoint.description import check_description
from fdjax.checkpoint.hf_folder import read_json
from fdjax.checkpoint.hf_writer import HfWriter
from fdjax.checkpoint.names import Weight
from fdjax.checkpoint.orbax_weights import OrbaxWriter
from fdjax.checkpoint.run_reader import Which
from fdjax.checkpoint.source import WEIGHTS, Source, WeightReader, side_files
from fdjax.errors import CheckpointError
from fdjax.files import require_local
from fdjax.model import WeightsDType, weights_dtype, with_weights_dtype

__all__ = ["SHARD_BYTES", "Target", "convert", "write_model"]

Target = Literal["orbax", "hf"]
SHARD_BYTES = 5_000_000_000
"""Size of a safetensors file at most, as transformers has it."""

_BLOCK_BYTES = 64_000_000
"""Part of a weight that is cast at once."""

Progress = Callable[[int, int, str], None]


class WeightWriter(Protocol):
    """Weights to disk, one at a time."""

    def write(self, weight: Weight, array: np.ndarray) -> None:
        """Adds a weight in our order of axes."""
        ...

    def close(self) -> None:
        """Writes what is left."""
        ...


def convert(
    source: Source,
    target: Path,
    *,
    to: Target,
    dtype: WeightsDType | None = None,
    which: Which = "student",
    max_shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda done, total, name: None,
) -> int:
    """Writes a model's folder in another format; the folder is whole or absent.

    Config, tokenizer, generation config, chat template and whatever else lies beside
    the weights are copied byte for byte; only another `dtype` is noted in config.json.

    Args:
      source: of `open_source`.
      target: a folder that does not exist yet, or an empty one.
      to: Orbax checkpoint or safetensors.
      dtype: type of the weights; by default as they are, and for a training checkpoint
        as its config.json says.
      which: policy or EMA teacher of a training checkpoint.
      max_shard_bytes: size of a safetensors file at most.
      progress: called with bytes done, bytes in all and the tensor's name.

    Returns:
      Bytes of weights written.

    Raises:
      CheckpointError: the source is damaged, transformers reads a run's tokenizer
        otherwise than it is written, the target is in use, or the disk is full.
      ConfigError: the embedding table lacks a row for one of the tokenizer's tokens.
    """
    check_description(source.description, source.config, trained=source.kind == "run")
    return write_model(
        source.reader(which),
        target,
        to=to,
        description=source.description,
        dtype=dtype,
        stored=source.kind != "run",
        max_shard_bytes=max_shard_bytes,
        progress=progress,
    )


def write_model(
    reader: WeightReader,
    target: Path,
    *,
    to: Target,
    description: Path,
    dtype: WeightsDType | None,
    stored: bool,
    max_shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda done, total, name: None,
) -> int:
    """What `convert` does, for weights from anywhere.

    Args:
      reader: gives the weights.
      target: a folder that does not exist yet, or an empty one.
      to: Orbax checkpoint or safetensors.
      description: folder of config.json, tokenizer and the rest.
      dtype: type of the weights, noted in config.json.
      stored: whether without a `dtype` the weights keep their own, rather than take
        that of config.json.
      max_shard_bytes: size of a safetensors file at most.
      progress: called with bytes done, bytes in all and the tensor's name.
    """
    config = read_json(description / "config.json")
    wanted = dtype or (None if stored else weights_dtype(config))
    if wanted is not None:
        config = with_weights_dtype(config, wanted)
    kinds = [(weight, wanted or reader.dtype(weight)) for weight in reader.weights]
    total = sum(
        math.prod(weight.shape) * jnp.dtype(kind).itemsize for weight, kind in kinds
    )
    with _new_folder(target, description, config, total) as folder:
        writer: WeightWriter = (
            HfWriter(folder, kinds, max_shard_bytes=max_shard_bytes)
            if to == "hf"
            else OrbaxWriter(folder / WEIGHTS)
        )
        done = 0
        for weight in reader.weights:
            progress(done, total, weight.tensor)
            array = _read(reader, weight, wanted)
            writer.write(weight, array)
            done += array.nbytes
        writer.close()
        progress(done, total, "")
    return total


@contextmanager
def _new_folder(
    target: Path, description: Path, config: dict[str, Any], size: int
) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place if all goes well.

    Args:
      target: a folder that does not exist yet, or an empty one.
      description: folder whose side files are copied.
      config: the content of config.json; copied as it is where it says the same.
      size: bytes that will be written.

    Raises:
      CheckpointError: the target is in use, or the disk is full.
    """
    require_local("target", target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(
            f"Expected a new folder to write to, got {target}, which is in use; give "
            "another, or delete it."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < size:
        raise CheckpointError(
            f"Expected {size / 1e9:.1f} GB of free disk for {target}, got "
            f"{free / 1e9:.1f} GB; make room, or choose another folder or dtype."
        )
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for path in side_files(description):
            copy = part / path.relative_to(description)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
        if json.loads((part / "config.json").read_text(encoding="utf-8")) != config:
            text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
            (part / "config.json").write_text(text, encoding="utf-8")
        yield part
        part.chmod(0o755)
        if target.exists():
            target.rmdir()
        part.rename(target)
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:
        # Orbax reports a failed write as ValueError.
        raise CheckpointError(
            f"Expected to write {target}, got: {error}; nothing is left of it. Make "
            "room, and run the same command again."
        ) from error
    finally:
        _remove(part)


def _remove(folder: Path) -> None:
    """Deletes a folder, though threads of a failed write may still put files there."""
    for _ in range(20):
        if not folder.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)


def _read(reader: WeightReader, weight: Weight, dtype: str | None) -> np.ndarray:
    """A weight in a type; only a block of it is ever there in two types."""
    if dtype is None or reader.dtype(weight) == dtype:
        return reader.read(weight)
    array = np.empty(weight.shape, jnp.dtype(dtype))
    rows, *others = weight.shape
    row_bytes = math.prod(others) * jnp.dtype(reader.dtype(weight)).itemsize
    step = max(1, _BLOCK_BYTES // row_bytes)
    for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        block = reader.read(weight, (part, *(slice(0, size) for size in others)))
        array[part] = _cast(weight, block, dtype)
    return array


def _cast(weight: Weight, array: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        cast = array.astype(jnp.dtype(dtype))
    # float16 ends at 65,504, and what lies beyond would become infinite in silence.
    if dtype == "float16" and (np.isinf(cast) & ~np.isinf(array)).any():
        raise CheckpointError(
            f"Expected {weight.tensor} to fit {dtype}, got values beyond 65504; choose "
            "bfloat16 or float32."
        )
    return cast
