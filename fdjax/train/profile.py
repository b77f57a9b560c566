"""Traces of chosen iterations, for a profiler."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from fdjax.ranges import TupleOf, Whole, require_fields

__all__ = ["NO_PROFILE", "Profile"]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Which iterations of each phase leave a trace of host and devices, and where.

    The first iterations compile: a trace of them is one of the compiler.
    """

    iterations: tuple[int, ...] = ()
    """Counted from 1."""
    folder: Path = Path("profile")
    """Receives `<phase>/<iteration>/`, as XProf, TensorBoard and Perfetto read it."""

    def __post_init__(self) -> None:
        require_fields(self, iterations=TupleOf(Whole(1)))

    @contextmanager
    def of(
        self, arm: str, iteration: int, wait_for: Callable[[], Any]
    ) -> Iterator[None]:
        """Traces the block if the iteration is chosen.

        Args:
          arm: the phase.
          iteration: from 1.
          wait_for: arrays that the block makes; their computation is in the trace.
        """
        if iteration not in self.iterations:
            yield
            return
        with jax.profiler.trace(str(self.folder / arm / str(iteration))):
            yield
            jax.block_until_ready(wait_for())


NO_PROFILE = Profile()
"""No iteration is traced."""
