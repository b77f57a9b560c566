"""How many workers this machine can hold."""

import os
from pathlib import Path

__all__ = ["available_memory_mb", "cores", "fitting_workers"]

CGROUP = Path("/sys/fs/cgroup")
"""Control group (version 2) of a container, seen from inside."""
SHARE = 0.8
"""Part of the free memory that workers may take."""
_MIB = 1 << 20


def fitting_workers(worker_mb: int, memory_mb: int | None = None) -> int:
    """One worker a core, fewer where their memory does not fit; at least one.

    Args:
      worker_mb: what one worker usually holds, in MiB; 0 for workers on another
        machine.
      memory_mb: what one may hold, where somebody chose it; counts instead.
    """
    if worker_mb == 0:
        return cores()
    free_mb = int(SHARE * available_memory_mb())
    return max(1, min(cores(), free_mb // (memory_mb or worker_mb)))


def cores(cgroup: Path = CGROUP) -> int:
    """The whole cores that this process may use; at least one.

    Args:
      cgroup: control group whose quota counts.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    # Rounded down: on part of a core a proof runs out of wall time.
    return max(1, min(count, int(_quota(cgroup / "cpu.max") or count)))


def available_memory_mb(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = CGROUP
) -> int:
    """Memory that new processes can take without swapping, in MiB.

    The whole memory where the system does not say how much is free.

    Args:
      meminfo: Linux's account of the memory.
      cgroup: control group whose limit counts.
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


def _quota(path: Path) -> float | None:
    """Cores of a `cpu.max`; None without the file, or for `max`."""
    try:
        quota, period = map(int, path.read_text().split())
    except (OSError, ValueError):
        return None
    return quota / period


def _number(path: Path) -> int | None:
    """The number in a file; None without the file, or for `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
