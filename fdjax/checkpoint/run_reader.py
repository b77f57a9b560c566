"""Reading the policy or the teacher out of a training checkpoint."""

from pathlib import Path
from typing import Literal

import numpy as np

from fdjax.checkpoint.names import Weight, weights
from fdjax.checkpoint.orbax_tree import OrbaxTree
from fdjax.errors import CheckpointError
from fdjax.model import ModelConfig

__all__ = ["RunReader", "Which", "newest_step"]

Which = Literal["student", "teacher"]

_FIELDS = {"student": "params", "teacher": "teacher"}
"""Fields of the train state."""


class RunReader:
    """Policy or EMA teacher of one step of a `CheckpointStore`.

    Layers are stacked there, so memory holds one parameter of all layers at a time.
    """

    def __init__(self, step: Path, config: ModelConfig, which: Which):
        """Opens the folder of a step.

        Raises:
          CheckpointError: it is incomplete, or of another model.
        """
        self._field = _FIELDS[which]
        self._tree = OrbaxTree(step / "state")
        self._held: tuple[tuple[str, ...], np.ndarray] | None = None
        every = weights(config)
        for weight in every:
            stack = () if weight.layer is None else (config.num_layers,)
            self._tree.check((self._field, *weight.path), stack + weight.shape)
        # All layers of a parameter come one after another.
        first = {
            weight.path: index for index, weight in reversed(list(enumerate(every)))
        }
        self.weights = sorted(every, key=lambda weight: first[weight.path])

    def dtype(self, weight: Weight) -> str:
        """Type in which a weight is stored."""
        return self._tree.dtype((self._field, *weight.path))

    def read(self, weight: Weight) -> np.ndarray:
        """A weight in host memory."""
        if self._held is None or self._held[0] != weight.path:
            self._held = None
            stack = self._tree.read((self._field, *weight.path))
            self._held = (weight.path, stack)
        stack = self._held[1]
        return stack if weight.layer is None else stack[weight.layer]


def newest_step(folder: Path) -> int:
    """The newest step of a folder of training checkpoints.

    Raises:
      CheckpointError: there is none.
    """
    steps = [
        int(path.name)
        for path in folder.iterdir()
        if path.name.isdecimal() and (path / "state").is_dir()
    ]
    if not steps:
        raise CheckpointError(
            f"Expected training checkpoints in {folder}, got "
            f"{sorted(path.name for path in folder.iterdir())}; give the folder whose "
            "subfolders are numbered steps, or one of these."
        )
    return max(steps)
