"""How many workers this machine can hold."""

import os
from pathlib import Path

__all__ = ["available_memory_mb", "cores", "fitting_workers"]

SHARE = 0.8
"""Part of the free memory that workers may take."""
_MIB = 1 << 20


def fitting_workers(worker_mb: int) -> int:
    """One worker a core, fewer where their memory does not fit; at least one.

    Args:
      worker_mb: what one worker holds, in MiB; 0 for workers on another machine.
    """
    if worker_mb == 0:
        return cores()
    return max(1, min(cores(), int(SHARE * available_memory_mb()) // worker_mb))


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory_mb(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int:
    """Memory that new processes can take without swapping, in MiB.

    The whole memory where the system does not say how much is free.

    Args:
      meminfo: Linux's account of the memory.
      cgroup: control group (version 2) of a container.
    """
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    if limit is not None and used is not None:
        free = min(free, limit - used)
    return max(free, 0) // _MIB


def _number(path: Path) -> int | None:
    """The number in a file; None without the file, or for `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
