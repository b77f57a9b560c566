"""Two runs that are to be one and the same, but for the clock."""

import json
from collections.abc import Iterator
from pathlib import Path

from fdjax.metrics import read_metrics

__all__ = ["COMPARED", "differences"]

_WHOLE = ("samples.jsonl", "probes.jsonl")
COMPARED = (
    "samples.jsonl, probes.jsonl and all files of policies/ byte by byte; "
    "metrics.jsonl without time, time/… and rollout/queue, which are the clock's"
)
"""What is compared."""


def differences(first: Path, second: Path) -> list[str]:
    """Files that are not the same in the folders of two runs; none where all are.

    Args:
      first: folder of a run.
      second: folder of the other.
    """
    names = {*_WHOLE, *_policies(first), *_policies(second)}
    found = [
        name for name in sorted(names) if _bytes(first / name) != _bytes(second / name)
    ]
    if _rows(first) != _rows(second):
        found.append("metrics.jsonl")
    return found


def _policies(folder: Path) -> Iterator[str]:
    for path in (folder / "policies").rglob("*"):
        if path.is_file():
            yield str(path.relative_to(folder))


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _rows(folder: Path) -> list[str]:
    """Metrics without the clock, as text: NaN is equal to NaN."""
    return [
        json.dumps({name: row[name] for name in row if not _of_clock(name)})
        for row in read_metrics(folder / "metrics.jsonl")
    ]


def _of_clock(name: str) -> bool:
    return name.startswith("time") or name == "rollout/queue"
