"""The batch of a step that was skipped, in a folder to look at and to replay."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fdjax.encoding import decode, encode
from fdjax.errors import DataError
from fdjax.files import write_whole
from fdjax.rollout import Batch, TeacherPrompts
from fdjax.train.guards.diagnosis import Diagnosis
from fdjax.train.state import TrainState

__all__ = ["Dump", "read_dump", "write_dump"]

_BATCH, _ABOUT = "batch.npz", "about.json"


@dataclass(frozen=True, kw_only=True)
class Dump:
    """A step that was skipped."""

    batch: Batch
    """What it was given; without `sampling`."""
    about: Mapping[str, Any]
    """Which step it was, and what is not finite."""


def write_dump(
    folder: Path,
    batch: Any,
    state: TrainState,
    diagnosis: Diagnosis | None,
    *,
    arm: str,
    iteration: int,
    update: int,
    behind: int,
) -> None:
    """Writes `batch.npz` and `about.json`.

    Args:
      folder: of this dump; replaced.
      batch: host arrays of the step.
      state: the newest, `behind` steps after the one that was skipped.
      diagnosis: of the batch by that state.
      arm: the phase.
      iteration: in which the step was, from 1.
      update: which of its optimizer steps, from 0.
      behind: optimizer steps since the state that the step was taken with.
    """
    arrays: dict[str, Any] = {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(batch)
    }
    step = int(jax.device_get(state.step))
    about: dict[str, Any] = {
        "arm": arm,
        "iteration": iteration,
        "update": update,
        "step": step - behind,
        "diagnosed_at_step": step,
        "key": jax.device_get(jax.random.key_data(state.key)).tolist(),
        "rows_not_finite": _rows_not_finite(arrays),
    }
    if diagnosis is not None:
        loss, norms, not_finite = jax.device_get(diagnosis)
        about |= {
            "loss": _shown(loss),
            "gradient_norms": {name: _shown(norm) for name, norm in norms.items()},
            "gradient_not_finite": {
                name: int(count) for name, count in not_finite.items() if count
            },
        }
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _BATCH).open("wb") as file:
        np.savez_compressed(file, **arrays)
    write_whole(folder / _ABOUT, encode(about, indent=1))


def read_dump(folder: Path) -> Dump:
    """The batch of a skipped step, as a train step takes it.

    Raises:
      DataError: the folder is no dump of a `rollout.Batch`.
    """
    try:
        about = decode((folder / _ABOUT).read_bytes())
        with np.load(folder / _BATCH) as arrays:
            batch = _nested(dict(arrays))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"expected {_BATCH} and {_ABOUT} of a skipped step in {folder}, got "
            f"{error!r}: give a folder below the run's dumps/"
        ) from error
    return Dump(batch=batch, about=about)


def _nested(arrays: Mapping[str, np.ndarray]) -> Batch:
    fields: dict[str, Any] = {}
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        outer, _, inner = name.partition(".")
        if inner:
            parts.setdefault(outer, {})[inner] = array
        else:
            fields[outer] = array
    fields |= {name: TeacherPrompts(**part) for name, part in parts.items()}
    return Batch(**fields)


def _rows_not_finite(arrays: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    """Rows of each array that hold NaN or infinity; left out where none does."""
    found: dict[str, list[int]] = {}
    for name, array in arrays.items():
        if array.ndim and np.issubdtype(array.dtype, np.floating):
            wrong = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
            if wrong.any():
                found[name] = np.flatnonzero(wrong).tolist()
    return found


def _shown(value: Any) -> float | str:
    """A number, or the name of one that JSON does not have."""
    number = float(value)
    return number if np.isfinite(number) else str(number)
