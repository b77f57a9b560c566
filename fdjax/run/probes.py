"""Probes of a run on disk, one row each, so that a resumed run takes none twice."""

from pathlib import Path
from typing import Any, Literal

from fdjax.metrics.lines import RowWriter, read_rows
from fdjax.run.probe import Probe

__all__ = ["ProbeRows", "Reader", "read_probes"]

Reader = Literal["student", "teacher"]
"""Whose prompts were put: with or without feedback."""


class ProbeRows(RowWriter):
    """Writer of `probes.jsonl`: `arm`, `step`, `reader` and the fields of a `Probe`."""

    def find(self, arm: str, step: int, reader: Reader) -> dict[str, Any] | None:
        """The row of a probe, if it was taken before."""
        for row in read_rows(self._path):
            if (row["arm"], row["step"], row["reader"]) == (arm, step, reader):
                return row
        return None

    def write(self, arm: str, step: int, reader: Reader, taken: Probe) -> None:
        """Appends a probe of the arm's policy after so many iterations."""
        row = {"arm": arm, "step": step, "reader": reader}
        self._append(row | dict(taken.to_json()))


def read_probes(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's probes, in the order in which they were taken.

    Raises:
      DataError: the file is missing, or a line before the last is not a row.
    """
    return read_rows(path)
