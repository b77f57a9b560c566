"""What the facts of all hosts say together."""

from collections.abc import Iterator, Sequence

from fdjax.doctor import Finding
from fdjax.pod.facts import HostFacts

__all__ = ["CLOCK_S", "DISK_GB", "devices_alike", "findings_of"]

CLOCK_S = (1.0, 60.0)
"""Seconds between two clocks from which on it is worth knowing, and wrong: beyond that
services refuse the tokens of a host."""
DISK_GB = (10.0, 2.0)
"""Free 10^9 bytes below which it is worth knowing, and wrong: rows, verdicts and
compiled programs of a run then leave no room for the smallest policy."""
_HALF = 0.5


def findings_of(
    facts: Sequence[HostFacts],
    *,
    clocks_s: Sequence[float],
    folder: Sequence[str] | None,
    endpoint: str,
) -> Iterator[Finding]:
    """One finding for each part; those that are at fault name their hosts.

    Args:
      facts: of each process, in their order.
      clocks_s: how far each clock is ahead of that of process 0, seconds.
      folder: what is wrong with each one's folder of runs; None where none was named.
      endpoint: that hosts were to reach; empty where none was named.
    """
    yield Finding(part="hosts", state="ok", found=f"{len(facts)}: {_names(facts)}")
    for part in ("fdjax", "python", "jax", "libtpu"):
        yield _alike(
            part,
            [getattr(one, part) for one in facts],
            "install the same on all hosts",
        )
    yield _clocks(clocks_s)
    yield _each(
        "Lean",
        ["" if one.lean_works else one.lean for one in facts],
        facts[0].lean,
        "fdjax lean install there, or fdjax lean selftest",
    )
    yield _room("memory", [one.memory_gb for one in facts])
    yield _disk(facts)
    if folder is not None:
        yield _each(
            "runs",
            folder,
            "the same folder, and all hosts write to it",
            "mount it on all hosts, writable, at the same path",
        )
    if endpoint:
        yield _each(
            "endpoint",
            [one.endpoint for one in facts],
            f"{endpoint} answers",
            "let these hosts out, or in there",
        )


def devices_alike(devices: Sequence[str]) -> Finding:
    """Whether each process drives the same.

    Args:
      devices: number and kind, of each process.
    """
    return _alike(
        "devices",
        devices,
        "rent a whole slice; see that no other process holds the chips",
    )


def _names(facts: Sequence[HostFacts]) -> str:
    names = [one.host for one in facts]
    return ", ".join(names if len(names) <= 8 else [*names[:3], "…", names[-1]])


def _alike(part: str, values: Sequence[str], remedy: str) -> Finding:
    """What must be the same everywhere."""
    if len(set(values)) == 1:
        return Finding(part=part, state="ok", found=f"{values[0]} on each host")
    groups = "; ".join(
        f"{value} on {_hosts([i for i, other in enumerate(values) if other == value])}"
        for value in dict.fromkeys(values)
    )
    return Finding(part=part, state="fail", found=groups, remedy=remedy)


def _each(part: str, wrong: Sequence[str], well: str, remedy: str) -> Finding:
    """What must be well everywhere; empty text where it is."""
    if not any(wrong):
        return Finding(part=part, state="ok", found=well)
    reasons = "; ".join(
        f"{_hosts([i for i, other in enumerate(wrong) if other == reason])}: {reason}"
        for reason in dict.fromkeys(filter(None, wrong))
    )
    return Finding(part=part, state="fail", found=reasons, remedy=remedy)


def _clocks(ahead_s: Sequence[float]) -> Finding:
    worst = max(range(len(ahead_s)), key=lambda index: abs(ahead_s[index]))
    known, wrong = CLOCK_S
    off = abs(ahead_s[worst])
    state = "ok" if off < known else "note" if off < wrong else "fail"
    found = f"within {max(off, 0.001):.3f} s of process 0"
    if state != "ok":
        found = f"host {worst} is {ahead_s[worst]:+.1f} s ahead of host 0"
    remedy = "" if state == "ok" else "have its clock set by NTP"
    return Finding(part="clocks", state=state, found=found, remedy=remedy)


def _disk(facts: Sequence[HostFacts]) -> Finding:
    """Less than any run needs is wrong; else as with other room."""
    known, wrong = DISK_GB
    lacking = [
        f"{one.disk_gb:g} GB free in {one.disk}, where a run needs {wrong:g}"
        if one.disk_gb < wrong
        else ""
        for one in facts
    ]
    if any(lacking):
        remedy = "free some; XDG_CACHE_HOME moves the cache, TMPDIR temporary files"
        return _each("disk", lacking, "", remedy)
    return _room("disk", [one.disk_gb for one in facts], least=known)


def _room(part: str, free_gb: Sequence[float], least: float = 0.0) -> Finding:
    """Little, or less than half of another's, is worth knowing."""
    low = [
        index
        for index, free in enumerate(free_gb)
        if free < max(least, _HALF * max(free_gb))
    ]
    found = f"{min(free_gb):g} to {max(free_gb):g} GB free"
    if not low:
        return Finding(part=part, state="ok", found=found)
    return Finding(
        part=part,
        state="note",
        found=f"{found}, the least on {_hosts(low)}",
        remedy="see what else is there",
    )


def _hosts(indices: Sequence[int]) -> str:
    """Hosts by number: a run of neighbours is written as one."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    named = [str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs]
    return f"host{'s' if len(indices) > 1 else ''} {', '.join(named)}"
