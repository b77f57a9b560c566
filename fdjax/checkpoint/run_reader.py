"""Reading the policy or the teacher out of a training checkpoint."""

from typing import Any, Literal

import jax
import numpy as np

from fdjax.checkpoint.names import Weight, weights
from fdjax.checkpoint.orbax_tree import STATE, OrbaxTree
from fdjax.checkpoint.steps import checkpoint_steps
from fdjax.errors import CheckpointError
from fdjax.model import ModelConfig
from fdjax.objects import Place

__all__ = ["RunReader", "Which"]

Which = Literal["student", "teacher"]

_FIELDS = {"student": "params", "teacher": "teacher"}
"""Fields of the train state."""


class RunReader:
    """Policy or EMA teacher of one step of a `CheckpointStore`.

    Layers are stacked there; each is read by itself.
    """

    def __init__(self, step: Place, config: ModelConfig, which: Which):
        """Opens the folder of a step.

        Raises:
          CheckpointError: it is incomplete, of another model, without a teacher, or of
            adapters without their base.
        """
        self.weights = weights(config)
        self._field = _FIELDS[which]
        self._tree = OrbaxTree(step / STATE, remedy=_remedy(step))
        if which == "teacher" and not self._tree.holds(self._field):
            raise CheckpointError(
                f"Expected an EMA teacher in {step}, got a policy alone: only phases "
                "whose objective reads a teacher keep one (FD does, SFT and GRPO do "
                "not). Take the student: leave out --which."
            )
        if self._tree.shape(self._keys(self.weights[0])) is None:
            raise CheckpointError(
                f"Expected all of a policy in {step}, got LoRA's adapters, whose base "
                "a checkpoint does not hold. Take the merged policy, which the run "
                "leaves in policies/<arm>."
            )
        for weight in self.weights:
            stack = () if weight.layer is None else (config.num_layers,)
            self._tree.check(self._keys(weight), stack + weight.shape)

    def dtype(self, weight: Weight) -> str:
        """Type in which a weight is stored."""
        return self._tree.dtype(self._keys(weight))

    def read(self, weight: Weight, index: tuple[slice, ...] = ()) -> np.ndarray:
        """A weight, or its part `index`, in host memory."""
        return self._tree.read(self._keys(weight), (*_layer(weight), *index))

    def load(self, weight: Weight, sharding: Any, dtype: Any) -> jax.Array:
        """A weight on a mesh; each process reads its own parts only."""
        return self._tree.load(self._keys(weight), sharding, dtype, _layer(weight))

    def _keys(self, weight: Weight) -> tuple[str, ...]:
        return (self._field, *weight.path)


def _layer(weight: Weight) -> tuple[int, ...]:
    return () if weight.layer is None else (weight.layer,)


def _remedy(step: Place) -> str:
    """What to do if a step is damaged."""
    others = [
        str(other) for other in checkpoint_steps(step.parent) if str(other) != step.name
    ]
    elsewhere = f"take another step ({', '.join(others)}), or " if others else ""
    return elsewhere + "write it again"
