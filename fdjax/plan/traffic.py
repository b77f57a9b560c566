"""Bytes that a compiled TPU program moves to and from the chip's large memory.

Each operation reads its operands that lie there once, and writes its results that lie
there once. What counts as less than the whole array is said in the program, too: a
slice or a gather reads what it takes, an update in place writes what is new.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fdjax.plan.hlo import Operation, Program, Run

__all__ = ["Move", "cycles", "moves", "streamed"]

_FREE = {
    "after-all",
    "bitcast",
    "constant",
    "get-tuple-element",
    "opt-barrier",
    "parameter",
    "partition-id",
    "tuple",
}
"""Names for what is there already."""

_TAKES = {"dynamic-slice", "gather", "slice"}
"""What reads no more of its first operand than it gives."""


@dataclass(frozen=True)
class Move:
    """Bytes of one array that an operation reads or writes, all its executions."""

    operation: Operation
    origin: str
    """The program's argument that is read; "" for anything else."""
    read: int = 0
    written: int = 0


def cycles(runs: Iterable[Run]) -> int:
    """Sum of the compiler's estimates; an operation without one adds nothing."""
    return sum(run.times * (run.operation.cycles or 0) for run in runs)


def streamed(runs: Iterable[Run], itemsize: int) -> int:
    """Bytes of weights as the windows of products pass over them.

    A second count beside `moves`, larger where a window meets a weight twice: the
    compiler says of each product how many tiles of 8 by 128 its window of the weight
    has, and how many turns it makes.

    Args:
      runs: of `Program.runs`.
      itemsize: bytes of a weight's element.
    """
    total = 0
    for run in runs:
        window, turns = (
            re.search(rf'"{name}":\[([^\]]+)\]', run.operation.text)
            for name in ("kernel_window_bounds", "iteration_bounds")
        )
        if window and turns:
            sizes = re.findall(r"\d+", window[1] + turns[1])
            total += run.times * math.prod(map(int, sizes)) * 8 * 128 * itemsize
    return total


def moves(program: Program, runs: Iterable[Run]) -> Iterator[Move]:
    """Of each array in the large memory that each operation reads or writes."""
    for run in runs:
        operation = run.operation
        if operation.opcode in _FREE or operation.opcode.endswith("-done"):
            continue
        known = program.computations[run.computation]
        for name in dict.fromkeys(operation.operands):
            whole = sum(one.size for one in known[name].outputs if not one.space)
            place = operation.operands.index(name)
            size = _read(program, run.computation, operation, place, whole)
            if size:
                origin = program.origin(run.computation, name)
                yield Move(operation, origin, read=run.times * size)
        for written in _written(program, run.computation, operation):
            yield Move(operation, "", written=run.times * written)


def _read(
    program: Program, computation: str, operation: Operation, place: int, whole: int
) -> int:
    """Bytes of an operand, at most all of it."""
    update = program.update(computation, operation)
    if update and update.place == place and operation.opcode != "fusion":
        return 0
    if operation.opcode in _TAKES and place == 0:
        return min(whole, operation.outputs[0].size)
    called = operation.named("calls")
    if called is None:
        return whole
    [name] = [
        inner.name
        for inner in program.computations[called].values()
        if inner.opcode == "parameter" and inner.number == place
    ]
    return min(whole, _used(program, called, name, whole))


def _used(program: Program, computation: str, name: str, whole: int) -> int:
    """Bytes of an array inside a fusion that all who use it there read."""
    if program.root(computation).name == name:
        return whole
    total = 0
    for user in program.computations[computation].values():
        if user.opcode == "bitcast" and name in user.operands:
            total += _used(program, computation, user.name, whole)
        else:
            for place, operand in enumerate(user.operands):
                if operand == name:
                    total += _read(program, computation, user, place, whole)
    return total


def _written(program: Program, computation: str, operation: Operation) -> Iterator[int]:
    """Bytes of each result in the large memory."""
    results = operation.outputs
    if operation.opcode == "copy-start":
        results = results[:1]  # then its source, and what its end waits for
    elif operation.opcode.endswith("-start"):
        results = results[1:2]  # after its source
    for place, buffer in enumerate(results):
        if not buffer.space:
            update = program.update(computation, operation, place)
            yield update.size if update else buffer.size
