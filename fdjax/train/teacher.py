"""The teacher: where its weights come from, and how they follow the policy's."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32

from fdjax.errors import ConfigError
from fdjax.ranges import Among, Number, Whole, require_fields

__all__ = [
    "BaseTeacher",
    "EMATeacher",
    "LiveTeacher",
    "SyncedTeacher",
    "Teacher",
    "init_teacher",
    "update_teacher",
]

TeacherDtype = Literal["float32", "bfloat16"]

_DTYPE = Among(*get_args(TeacherDtype))


@dataclass(frozen=True, kw_only=True)
class BaseTeacher:
    """The policy that the phase began with, frozen."""

    dtype: TeacherDtype = "float32"
    """Of its weights."""

    def __post_init__(self) -> None:
        require_fields(self, dtype=_DTYPE)


@dataclass(frozen=True, kw_only=True)
class LiveTeacher:
    """The policy as it is, without gradient; no copy is held."""


@dataclass(frozen=True, kw_only=True)
class EMATeacher:
    """φ ← (1 − η) φ + η θ after each optimizer step (arXiv:2601.20802)."""

    rate: float = 0.05
    """η in (0, 1)."""
    dtype: TeacherDtype = "float32"
    """Of its weights; bfloat16 is refused, because such an average stands still as soon
    as η times the difference is below 1/512 of the weight."""

    def __post_init__(self) -> None:
        require_fields(self, dtype=_DTYPE)
        require_rate = Number(above=0, below=1)
        if not require_rate.allows(self.rate):
            raise ConfigError(
                f"expected EMATeacher.rate to be {require_rate}, got {self.rate!r}: "
                "BaseTeacher is the rate 0, LiveTeacher the rate 1"
            )
        if self.dtype != "float32":
            raise ConfigError(
                f"expected EMATeacher.dtype float32, got {self.dtype}: an average in "
                "it stands still where its weights differ from the policy's by less "
                f"than one part in {self.rate * 512:.3g}; a BaseTeacher or a "
                "SyncedTeacher may have it"
            )


@dataclass(frozen=True, kw_only=True)
class SyncedTeacher:
    """A copy of the policy, made anew every `every` optimizer steps."""

    every: int
    """Optimizer steps of the phase between copies. A step that is not taken
    (`train/skipped`, `train/empty`) copies as well: the policy is as it was."""
    dtype: TeacherDtype = "float32"
    """Of its weights."""

    def __post_init__(self) -> None:
        require_fields(self, every=Whole(1), dtype=_DTYPE)


Teacher = BaseTeacher | LiveTeacher | EMATeacher | SyncedTeacher
"""Where a teacher's weights come from."""


def init_teacher(params: Any, teacher: Teacher | None) -> Any:
    """A copy of the policy in memory of its own, or None where none is held.

    Args:
      params: θ.
      teacher: what follows it; None where no term reads one.
    """
    if teacher is None or isinstance(teacher, LiveTeacher):
        return None
    dtype = jnp.dtype(teacher.dtype)
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype, copy=True), params)


def update_teacher(
    weights: Any,
    params: Any,
    teacher: Teacher,
    *,
    step: Int32[Array, ""],
    taken: Bool[Array, ""],
) -> Any:
    """The teacher's weights after an optimizer step.

    Args:
      weights: φ before it, as `init_teacher` made them.
      params: θ after it, float32, same tree.
      teacher: what φ is to θ.
      step: optimizer steps, this one included.
      taken: whether it was; if not, θ is as it was.
    """
    match teacher:
        case EMATeacher(rate=rate):
            # Not arithmetic with 0, which would let NaN through.
            return jax.tree.map(
                lambda old, new: jnp.where(taken, old + rate * (new - old), old),
                weights,
                params,
            )
        case SyncedTeacher(every=every):
            due = step % every == 0
            return jax.tree.map(
                lambda old, new: jnp.where(due, new.astype(old.dtype), old),
                weights,
                params,
            )
        case BaseTeacher() | LiveTeacher():
            return weights
