"""The JSON files of a Hugging Face folder, and which files hold its weights."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fdjax.errors import CheckpointError

__all__ = ["ADAPTER", "INDEX", "SINGLE", "and_more", "read_json", "shards"]

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

ADAPTER = "adapter_config.json"

_RANKS = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
"""Files of transformers' distributed checkpoints (`is_sharded_checkpoint`)."""


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
      CheckpointError: there is no such file, it holds something else, or it gives a
        key two values.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if content.get(key, value) != value:
                raise CheckpointError(
                    f"Expected one value of {key!r} in {path}, got {content[key]!r} "
                    f"and {value!r}; keep the one that is meant."
                )
            content[key] = value
        return content

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except CheckpointError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"Expected a JSON file at {path}, got: {error}; download it again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"Expected an object in {path}, got {type(content).__name__}; download it "
            "again."
        )
    return content


def shards(folder: Path) -> dict[Path, list[str]]:
    """The files that hold the weights; of each the tensors that the index says of it.

    As transformers 5 chooses (`_get_resolved_checkpoint_files`): a single file counts
    before an index, and of the index only the names of the files (a file's tensors
    are what its header says).

    Raises:
      CheckpointError: the index is damaged, or names a file that is not there; or
        beside the weights there are others that transformers would take.
    """
    _refuse_second_truths(folder)
    if (folder / SINGLE).is_file():
        return {folder / SINGLE: []}
    return _indexed(folder)


def and_more(names: list[str]) -> str:
    """How many names there are beside the first, for a message."""
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _refuse_second_truths(folder: Path) -> None:
    if (folder / ADAPTER).is_file():
        # `maybe_load_adapters` puts it onto the model, if PEFT is installed.
        raise CheckpointError(
            f"Expected a model and no adapter in {folder}, got {ADAPTER}, which "
            "transformers would apply; merge it (PEFT's merge_and_unload) and save the "
            f"result, or move {ADAPTER} away to leave it out."
        )
    ranks = sorted(path.name for path in folder.iterdir() if _RANKS.match(path.name))
    if ranks:
        # `get_distributed_checkpoint_dir` comes before all other weights.
        raise CheckpointError(
            f"Expected {SINGLE} or {INDEX} alone in {folder}, got a distributed "
            f"checkpoint ({ranks[0]}{and_more(ranks)}), which transformers would read "
            "instead; keep one of the two."
        )


def _indexed(folder: Path) -> dict[Path, list[str]]:
    index = folder / INDEX
    names = read_json(index).get("weight_map")
    if not isinstance(names, Mapping) or not names:
        raise CheckpointError(
            f"Expected a weight_map in {index}, got none; download it again."
        )
    outside = [name for name in names.values() if Path(str(name)).name != name]
    if outside:
        raise CheckpointError(
            f"Expected names of files beside it in {index}, got {outside[0]!r}; "
            "download it again."
        )
    found: dict[Path, list[str]] = {}
    for tensor, file in names.items():
        found.setdefault(folder / file, []).append(tensor)
    for path, tensors in found.items():
        if not path.is_file():
            raise CheckpointError(
                f"Expected the file {path.name} in {folder}, which holds "
                f"{tensors[0]}{and_more(tensors)}, got none; download it."
            )
    return dict(sorted(found.items()))
