"""What a path or hub id holds: a Hugging Face folder, converted weights, a run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from etils import epath
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from fdjax.checkpoint.description import read_config
from fdjax.checkpoint.hf_folder import ADAPTER, INDEX, SINGLE, and_more
from fdjax.checkpoint.hf_reader import HfReader
from fdjax.checkpoint.names import Weight
from fdjax.checkpoint.orbax_tree import STATE
from fdjax.checkpoint.orbax_weights import OrbaxReader
from fdjax.checkpoint.run_reader import RunReader, Which
from fdjax.checkpoint.steps import checkpoint_steps
from fdjax.errors import CheckpointError
from fdjax.model import ModelConfig
from fdjax.objects import (
    Place,
    children,
    fetched,
    holds,
    open_store,
    place,
    remote,
    there,
)

__all__ = ["WEIGHTS", "Source", "WeightReader", "open_source", "side_files"]

Reader = HfReader | OrbaxReader | RunReader
Kind = Literal["hf", "orbax", "run"]

WEIGHTS = "weights"
"""Subfolder of a converted model that is an Orbax checkpoint."""

_PART = re.compile(r"model-\d+-of-\d+\.safetensors")
"""A file that makes sense with an index only."""

_MODEL = "model"
"""Subfolder of a run with the model's config.json and tokenizer."""

_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "LICENSE*", "*.md")
"""Files of a hub repository that are downloaded."""

_HEAVY = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack")
"""Endings of files that hold weights."""


class WeightReader(Protocol):
    """Weights on disk, read one at a time."""

    weights: list[Weight]
    """All of them."""

    def dtype(self, weight: Weight) -> str:
        """Type in which a weight is stored."""
        ...

    def read(self, weight: Weight, index: tuple[slice, ...] = ()) -> np.ndarray:
        """A weight, or its part `index`, in host memory."""
        ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model on disk."""

    kind: Kind
    """Hugging Face folder, converted weights, or training checkpoint."""
    weights: Place
    """Where the weights are; in a store, training checkpoints alone."""
    description: Path
    """Folder of config.json and tokenizer."""
    hf_config: Mapping[str, Any]
    """The content of config.json."""
    config: ModelConfig
    """The model."""

    def reader(self, which: Which = "student") -> Reader:
        """Opens the weights and checks them.

        Args:
          which: policy or EMA teacher of a training checkpoint.

        Raises:
          CheckpointError: they are damaged, incomplete, or of another model; or there
            is no teacher.
        """
        if which == "teacher" and self.kind != "run":
            raise CheckpointError(
                f"Expected a training checkpoint to take the teacher from, got "
                f"{self.weights}, which holds one model; leave out --which."
            )
        match self.kind:
            case "hf":
                return HfReader(Path(self.weights), self.config)
            case "orbax":
                return OrbaxReader(Path(self.weights), self.config)
            case "run":
                return RunReader(self.weights, self.config, which)


def open_source(
    source: str | Path,
    *,
    model: Path | None = None,
    step: int | None = None,
    revision: str | None = None,
) -> Source:
    """Recognises a model by what is there; a hub id is downloaded first, resumably.

    Args:
      source: Hugging Face folder, folder of `fdjax convert --to orbax`, folder of
        training checkpoints or one step of it, one of these in an object store
        (`gs://…`), or a hub id such as Qwen/Qwen3-0.6B.
      model: for training checkpoints, folder of config.json and tokenizer; by default
        the folder `model` of the run that they lie in.
      step: of the training checkpoints; the newest by default.
      revision: of a hub id: branch, tag or commit.

    Raises:
      CheckpointError: nothing of the kind is there, or more than one kind; it cannot
        be downloaded; or an argument is for another kind of source.
      ConfigError: the model is none that this decoder is, or an object store refuses.
      StoreError: an object store does not answer.
    """
    folder = place(source)
    if remote(folder):
        return _open_address(folder, model, step, revision)
    folder = Path(folder)
    if not folder.exists():
        folder = _download(str(source), revision)
    elif revision is not None:
        raise CheckpointError(
            f"Expected a hub id to take the revision {revision!r} of, got the folder "
            f"{folder}; leave out --revision."
        )
    kind = _kind(folder)
    if kind == "run":
        found = _step(folder.absolute(), step)
        return _described(kind, found, model or _run_model(found))
    for flag, value in (("--step", step), ("--model", model)):
        if value is not None:
            raise CheckpointError(
                f"Expected training checkpoints with {flag} {value}, got {folder}, "
                f"which holds one model; leave out {flag}."
            )
    return _described(kind, folder / WEIGHTS if kind == "orbax" else folder, folder)


def side_files(folder: Path) -> list[Path]:
    """Files of a model's folder that are not weights: config, tokenizer, licence."""
    return sorted(
        path
        for path in [*folder.iterdir(), *folder.glob("additional_chat_templates/*")]
        if path.is_file()
        and path.suffix not in _HEAVY
        and not path.name.endswith(".index.json")
        and not path.name.startswith(".")
    )


def _kind(folder: Path) -> Kind:
    """The one kind of model that a folder holds."""
    safetensors = [name for name in (SINGLE, INDEX) if (folder / name).is_file()]
    converted = [WEIGHTS] if (folder / WEIGHTS / STATE).is_dir() else []
    step = [STATE] if (folder / STATE).is_dir() else []
    marks: list[tuple[Kind, list[str], str]] = [
        ("hf", safetensors, "a Hugging Face folder"),
        ("orbax", converted, "converted weights"),
        ("run", step, "one training checkpoint"),
        ("run", list(map(str, checkpoint_steps(folder))), "training checkpoints"),
    ]
    found = [mark for mark in marks if mark[1]]
    if not found:
        raise _unrecognised(folder)
    if len(found) > 1:
        both = " and ".join(f"{names[0]} of {what}" for _, names, what in found)
        raise CheckpointError(
            f"Expected one model in {folder}, got {both}; move what is not meant to a "
            "folder of its own."
        )
    return found[0][0]


def _open_address(
    address: epath.Path, model: Path | None, step: int | None, revision: str | None
) -> Source:
    """A model in an object store.

    Training checkpoints are read where they are. Other models, which are read whole,
    are fetched to this machine.
    """
    open_store(address, writes=False)
    here = children(address)
    trained = STATE in here or bool(checkpoint_steps(address))
    if not trained and "config.json" in here:
        return open_source(fetched(address), model=model, step=step, revision=revision)
    if not trained:
        phases = children(address / "checkpoints")
        remedy = (
            f"of a run give checkpoints/<phase>, with one of {', '.join(phases)}"
            if phases
            else "give the address of a model's folder, or of training checkpoints"
        )
        raise CheckpointError(
            f"Expected a model at {address}, got {', '.join(here) or 'nothing'}; "
            f"{remedy}."
        )
    if revision is not None:
        raise CheckpointError(
            f"Expected a hub id to take the revision {revision!r} of, got {address}; "
            "leave out --revision."
        )
    found = _step(address, step)
    return _described("run", found, model or _run_model(found))


def _unrecognised(folder: Path) -> CheckpointError:
    """What to say of a folder, or a file, that holds no model."""
    files = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    parts = [name for name in files if _PART.fullmatch(name)]
    phases = [
        str(path)
        for path in sorted(folder.glob("checkpoints/*"))
        if checkpoint_steps(path)
    ]
    if phases:
        remedy = f"of a run give the checkpoints of one phase: {', '.join(phases)}"
    elif parts:
        remedy = f"{INDEX} belongs to {parts[0]}{and_more(parts)}: download it"
    elif ADAPTER in files:
        remedy = "merge the adapter into its model first (PEFT's merge_and_unload)"
    else:
        remedy = (
            "weights in another format can be saved as safetensors by transformers' "
            "save_pretrained"
        )
    return CheckpointError(
        f"Expected a folder with config.json and {SINGLE} or {INDEX}, one that `fdjax "
        f"convert --to orbax` wrote, or training checkpoints, got {folder} with "
        f"{files if folder.is_dir() else 'a file'}; {remedy}."
    )


def _step(folder: Place, step: int | None) -> Place:
    """The folder of a step of training checkpoints, which may be given itself."""
    if holds(folder / STATE):
        if step is not None and folder.name != str(step):
            raise CheckpointError(
                f"Expected the training checkpoint of step {step}, got {folder}; give "
                "the folder above it, or leave out --step."
            )
        return folder
    found = checkpoint_steps(folder)
    if step is not None and step not in found:
        raise CheckpointError(
            f"Expected a training checkpoint of step {step} in {folder}, got the steps "
            f"{list(map(str, found))}; choose one of these, or leave out --step."
        )
    return folder / str(max(found) if step is None else step)


def _described(kind: Kind, weights: Place, description: Path) -> Source:
    hf_config, config = read_config(description)
    return Source(
        kind=kind,
        weights=weights,
        description=description,
        hf_config=hf_config,
        config=config,
    )


def _run_model(folder: Place) -> Path:
    parents = folder.parents[:-3] if remote(folder) else folder.parents
    for parent in parents:
        described = parent / _MODEL
        if there(described / "config.json"):
            return fetched(described) if remote(described) else Path(described)
    raise CheckpointError(
        f"Expected a folder {_MODEL} with config.json beside or above the training "
        f"checkpoint {folder}, got none; name one with --model."
    )


def _download(name: str, revision: str | None) -> Path:
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=list(_WANTED))
        )
    except HFValidationError as error:
        raise CheckpointError(
            f"Expected a folder or a hub id such as Qwen/Qwen3-0.6B, got {name!r}, "
            "which is neither; check the path."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"Expected to download {name} from the hub, because there is no such "
            f"folder, got: {error}. Check the name; gated models need a login (hf auth "
            "login). What has arrived is kept: the same command goes on."
        ) from error
