"""Programs compiled one after the other, and what the compiler says of each."""

import re
import time
from dataclasses import dataclass

import jax

from fdjax.plan.collectives import Collective, collectives, received_bytes
from fdjax.plan.hlo import Program
from fdjax.plan.programs import Job

__all__ = ["Compiled", "compile_job"]

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "": 1}
_NEEDED = re.compile(r"(?:Used |temporaries \()([\d.]+)([KMGT]?)")
"""How much a program would need, in the compiler's refusal."""


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What the compiler says of a program, on each device."""

    name: str
    about: str
    phases: tuple[str, ...]
    seconds: float
    """To lower and compile it, on the machine that did."""
    peak: int
    """Bytes at most at any time, arguments included; of a program that was refused,
    what it would need at least."""
    arguments: int = 0
    """Bytes of what it is given, donated or not."""
    results: int = 0
    """Bytes of what it gives back beside donated arguments."""
    collectives: tuple[Collective, ...] = ()
    refusal: str = ""
    """Why there is no program: it needs more memory than the chip has."""

    @property
    def temporaries(self) -> int:
        """Bytes on top of arguments at the peak."""
        return max(0, self.peak - self.arguments)

    @property
    def received(self) -> float:
        """Bytes from other devices, once through; of a loop of unknown turns one."""
        return received_bytes(self.collectives)


def compile_job(job: Job, usable: int) -> Compiled:
    """A program, or why there is none.

    Args:
      job: what to lower and compile.
      usable: bytes of the chip's memory, of which a refused program needs more.

    Raises:
      JaxRuntimeError: it cannot be compiled for another reason than its size.
    """
    began = time.monotonic()
    try:
        compiled = job.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Compiled(
            name=job.name,
            about=job.about,
            phases=job.phases,
            seconds=time.monotonic() - began,
            peak=max(_needed(str(error)), usable + 1),
            refusal=_first_line(str(error)),
        )
    memory = compiled.memory_analysis()
    assert memory is not None  # a TPU's compiler says it
    program = Program.parse(compiled.as_text() or "")
    return Compiled(
        name=job.name,
        about=job.about,
        phases=job.phases,
        seconds=time.monotonic() - began,
        peak=memory.peak_memory_in_bytes,
        arguments=memory.argument_size_in_bytes,
        results=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        collectives=tuple(collectives(program, _devices(compiled))),
    )


def _devices(compiled: jax.stages.Compiled) -> int:
    shardings = jax.tree.leaves(compiled.input_shardings)
    return max((len(each.device_set) for each in shardings), default=1)


def _needed(refusal: str) -> int:
    """Bytes that a refused program would need, as far as the compiler says it."""
    sizes = [float(size) * _UNITS[unit] for size, unit in _NEEDED.findall(refusal)]
    return int(max(sizes, default=0.0))


def _first_line(refusal: str) -> str:
    return refusal.partition("\n")[0].removeprefix("RESOURCE_EXHAUSTED: ")
