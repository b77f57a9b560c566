"""What every process of `benchmarks.losses` does alike; needs NumPy only.

A process gets a JSON object as its only argument (`Task`) and prints one as its last
line. The arrays lie in files, so that all processes see the same numbers whatever
their NumPy.
"""

import ctypes
import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

CLIP_LOW, CLIP_HIGH = 0.2, 0.28
"""ε of the clipped surrogate."""
ALPHA = 0.5
"""The teacher's weight in the mixture of the Jensen-Shannon divergence."""

Call = Callable[[], tuple[Any, Any, Any]]
"""Computes the loss, its gradient by the hidden states and that by the head."""


@dataclass(frozen=True)
class Task:
    """What a process measures."""

    workload: str
    """forward_kl, reverse_kl, jsd or grpo."""
    variant: str
    """Which of the library's ways, as the script names them."""
    folder: str
    """Where the arrays are."""
    repeats: int
    """Calls that are timed."""


@dataclass(frozen=True)
class Inputs:
    """One batch; B rows of T tokens, all scored."""

    hidden: np.ndarray
    """The student's [B, T, D]."""
    head: np.ndarray
    """The student's [V, D]."""
    teacher_hidden: np.ndarray
    """[B, T, D]."""
    teacher_head: np.ndarray
    """[V, D]."""
    tokens: np.ndarray
    """[B, T], int32."""
    advantages: np.ndarray
    """[B]."""
    old_logprobs: np.ndarray
    """[B, T], near the student's, so that some ratios are clipped."""


@dataclass(frozen=True)
class Contender:
    """A way to compute the loss, ready to be called."""

    call: Call
    function: str
    """What of the library is called."""
    compiles_in_call: bool = False
    """The first call compiles: make one before memory is measured."""
    differs: str = ""
    """How what it computes is not the loss, but only near to it."""


def read_task() -> tuple[Task, Inputs]:
    """The task in the arguments, and its arrays; GRPO has no teacher to load."""
    Path("/proc/self/oom_score_adj").write_text("1000")  # first to go if memory ends
    task = Task(**json.loads(sys.argv[1]))
    folder = Path(task.folder)
    unused = ("teacher_hidden", "teacher_head") if task.workload == "grpo" else ()
    empty = np.zeros((0,), np.float32)
    arrays = {
        name: empty if name in unused else np.load(folder / f"{name}.npy")
        for name in Inputs.__dataclass_fields__
    }
    return task, Inputs(**arrays)


def report(task: Task, contender: Contender, packages: tuple[str, ...]) -> None:
    """Measure, and print the line that `benchmarks.losses` reads."""
    if contender.compiles_in_call:
        contender.call()
    found = measure(contender.call, task.repeats)
    found["function"] = contender.function
    found["differs"] = contender.differs
    found["versions"] = {name: version(name) for name in packages}
    print(json.dumps(found), flush=True)


def measure(call: Call, repeats: int) -> dict[str, Any]:
    """Memory of the first call, then processor and wall seconds of `repeats` more."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to the present
    before = resident("VmRSS")
    loss, by_hidden, by_head = call()
    peak = resident("VmHWM")
    found: dict[str, Any] = {
        "peak_bytes": peak - before,
        "loss": float(loss),
        "hidden_norm": float(np.linalg.norm(np.asarray(by_hidden))),
        "head_norm": float(np.linalg.norm(np.asarray(by_head))),
    }
    del loss, by_hidden, by_head
    cpu, wall = [], []
    for _ in range(repeats):
        begin, begin_wall = processor_seconds(), time.perf_counter()
        result = call()
        wall.append(time.perf_counter() - begin_wall)
        cpu.append(processor_seconds() - begin)
        del result
    return {**found, "cpu_s": cpu, "wall_s": wall}


def resident(key: str) -> int:
    """Bytes of this process that lie in memory: VmRSS now, VmHWM at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def processor_seconds() -> float:
    """Seconds of all threads, in this program and in the kernel for it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
