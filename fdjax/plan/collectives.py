"""What a compiled program exchanges between devices, loops counted as often as run."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fdjax.plan.hlo import Buffer, Operation, Program, Run

__all__ = ["KINDS", "Collective", "collectives", "received_bytes", "summed"]

KINDS = (
    *("all-gather", "all-reduce", "reduce-scatter"),
    *("all-to-all", "ragged-all-to-all", "collective-permute"),
)
"""Operations by which devices exchange arrays; one that goes on beside other work ends
in "-start"."""


@dataclass(frozen=True, kw_only=True)
class Collective:
    """An exchange, or several of one kind and size."""

    kind: str
    shape: str
    """Of its largest array, as the program has it: "bf16[4096,512]"."""
    size: int
    """Bytes on a device of what is gathered, reduced or sent, before a reduction is
    scattered and after a gathering."""
    group: int
    """Devices that take part in it together."""
    times: int

    @property
    def received(self) -> float:
        """Bytes that each device must receive at least, all executions together."""
        others = (self.group - 1) / self.group
        passes = {"all-reduce": 2 * others, "collective-permute": 1}
        return self.times * self.size * passes.get(self.kind, others)


def received_bytes(found: Iterable[Collective]) -> float:
    """Bytes that each device must receive at least."""
    return sum(each.received for each in found)


def summed(found: Iterable[Collective]) -> Mapping[str, float]:
    """Bytes received by kind, the most first."""
    total: dict[str, float] = {}
    for each in found:
        total[each.kind] = total.get(each.kind, 0.0) + each.received
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def collectives(program: Program, devices: int) -> list[Collective]:
    """Exchanges that a program cannot do without, those that move most first.

    Those of loops as often as they turn, of loops of unknown turns once; where it
    branches, those of the branch that receives least.

    Args:
      program: a compiled one.
      devices: that it runs on.
    """
    times: dict[Collective, int] = {}
    for each in _by_channel(program, program.entry, 1, devices).values():
        alike = replace(each, times=1)
        times[alike] = times.get(alike, 0) + each.times
    joined = [replace(each, times=count) for each, count in times.items()]
    return sorted(joined, key=lambda each: -each.received)


def _by_channel(
    program: Program, computation: str, times: int, devices: int
) -> dict[object, Collective]:
    """Exchanges of a computation and of all that it calls, each with its channel.

    One that goes on beside other work is several operations of one channel.
    """
    found: dict[object, Collective] = {}
    for operation in program.computations[computation].values():
        kind = operation.opcode.removesuffix("-start")
        if kind in KINDS:
            run = Run(computation, operation, times)
            each = _collective(kind, program, run, devices)
            channel = re.search(r"channel_id=(\d+)", operation.text)
            key = channel[1] if channel else object()
            _add(found, {key: each} if each.group > 1 else {})
        turns = 1
        if operation.opcode == "while":
            turns = program.turns(operation) or 1
        inner = [
            _by_channel(program, called, times * turns, devices)
            for called in operation.called
            if called in program.computations
        ]
        if operation.opcode == "conditional":
            inner = [min(inner, key=lambda branch: received_bytes(branch.values()))]
        for each in inner:
            _add(found, each)
    return found


def _add(found: dict[object, Collective], more: Mapping[object, Collective]) -> None:
    """Of several on one channel the one that moves most stays."""
    for key, each in more.items():
        if key not in found or each.received > found[key].received:
            found[key] = each


def _collective(kind: str, program: Program, run: Run, devices: int) -> Collective:
    arrays = _arrays(kind, program, run)
    return Collective(
        kind=kind,
        shape=str(max(arrays, key=lambda buffer: buffer.size)),
        size=sum(buffer.size for buffer in arrays),
        group=_group(kind, run.operation, devices),
        times=run.times,
    )


def _arrays(kind: str, program: Program, run: Run) -> Sequence[Buffer]:
    """What is whole: operands of what is scattered, results of all else."""
    operation = run.operation
    known = program.computations[run.computation]
    operands = [buffer for name in operation.operands for buffer in known[name].outputs]
    if kind == "reduce-scatter":
        return operands
    results = operation.outputs
    if operation.opcode.endswith("-start") and kind != "all-reduce":
        results = results[len(operands) : 2 * len(operands)]
    return results


def _group(kind: str, operation: Operation, devices: int) -> int:
    """Devices that exchange with one another, in any of the ways to write it."""
    text = operation.text
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", text)
        found = re.findall(r"(\d+),(\d+)", pairs[1]) if pairs else []
        return 2 if any(source != target for source, target in found) else 1
    if cut := re.search(r"replica_groups=\[(\d+),(\d+)\]", text):
        return int(cut[2])
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\]\s*\{(.*?)\}", text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return len(listed[1].split(","))
    return devices
