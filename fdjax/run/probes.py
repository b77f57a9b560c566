"""Probes of a run on disk, one row each, so that a resumed run takes none twice."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fdjax.metrics.lines import RowWriter, read_rows
from fdjax.run.probe import Probe
from fdjax.sharding import on_first

__all__ = ["ProbeAt", "ProbeRows", "Reader", "read_probes"]

Reader = Literal["student", "teacher"]
"""Whose prompts were put: with or without feedback."""


@dataclass(frozen=True, kw_only=True)
class ProbeAt:
    """Which policy was probed, and when."""

    arm: str
    """The phase, as in the other rows of a run; "base" before any."""
    step: int
    """Its iterations."""
    policy: str
    """The arm, whose phases follow each other; "base" before any."""
    iterations: int
    """Those of all its phases so far."""


class ProbeRows(RowWriter):
    """Writer of `probes.jsonl`: the fields of `ProbeAt` and `Probe`, and `reader`."""

    def find(self, at: ProbeAt, reader: Reader) -> dict[str, Any] | None:
        """The row of a probe, if it was taken before; the first process knows."""
        return on_first(lambda: self._found(at, reader))

    def _found(self, at: ProbeAt, reader: Reader) -> dict[str, Any] | None:
        for row in read_rows(self._path) if self._path else ():
            if (row["arm"], row["step"], row["reader"]) == (at.arm, at.step, reader):
                return row
        return None

    def write(self, at: ProbeAt, reader: Reader, taken: Probe) -> None:
        """Appends a probe, unless it was taken before."""
        if self.find(at, reader) is None:
            self._append({**asdict(at), "reader": reader, **taken.to_json()})


def read_probes(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's probes, in the order in which they were taken.

    Raises:
      DataError: the file is missing, or a line before the last is not a row.
    """
    return read_rows(path)
