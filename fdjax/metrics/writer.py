"""Metrics and samples of a run on disk."""

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np

from fdjax.errors import ConfigError
from fdjax.metrics.lines import RowWriter, read_rows
from fdjax.metrics.trackers import Tracking

__all__ = ["MetricsWriter", "SampleWriter", "read_metrics"]

_RESERVED = frozenset({"arm", "step", "time"})

_GAP = "resume/missing_rows"

_logger = logging.getLogger(__name__)


class MetricsWriter(RowWriter):
    """Writer of metric rows: `{"arm", "step", "time", key: value, …}`."""

    def __init__(self, path: Path | None, tracking: Tracking | None = None) -> None:
        """Open the file for appending, creating it and cutting off a torn line.

        Args:
          path: the JSON lines file; its folder exists. With None nothing is written.
          tracking: receives each row after the file.
        """
        super().__init__(path)
        self._tracking = tracking or Tracking()

    def write(
        self,
        arm: str,
        step: int,
        values: Mapping[str, SupportsFloat | None],
        wall_time_s: float | None = None,
    ) -> None:
        """Append one row.

        Args:
          arm: arm of the experiment.
          step: step of the arm that the values belong to.
          values: key to number; integers stay integers, NaN, infinities and None
            become null.
          wall_time_s: Unix time of the row; now when None.

        Raises:
          ConfigError: a key is one of `arm`, `step`, `time`.
        """
        taken = _RESERVED.intersection(values)
        if taken:
            raise ConfigError(
                f"expected metric keys other than {sorted(_RESERVED)}, got "
                f"{sorted(taken)}: use an `area/name` key"
            )
        row: dict[str, Any] = {
            "arm": arm,
            "step": step,
            "time": time.time() if wall_time_s is None else wall_time_s,
        }
        numbers = {key: _number(one) for key, one in values.items()}
        self._append(row | numbers)
        finite = {
            key: number
            for key, number in numbers.items()
            if number is not None and math.isfinite(number)
        }
        self._tracking.write(arm, step, finite, row["time"])

    def truncate_after(self, arm: str, step: int) -> None:
        """Drops later rows of an arm, before a resume (`RowWriter`)."""
        super().truncate_after(arm, step)
        self._tracking.truncate_after(arm, step)

    def mark_gap(self, arm: str, step: int, expected: int) -> None:
        """Marks where rows were lost, as when somebody deleted the file.

        The mark is a row at `step` with their number as `resume/missing_rows`.

        Args:
          arm: arm that resumes.
          step: last step of the arm that the checkpoint holds.
          expected: rows that the arm wrote up to it, at least.
        """
        if self._path is None:
            return
        present = sum(
            row.get(_GAP, 1)
            for row in read_rows(self._path)
            if row["arm"] == arm and row["step"] <= step
        )
        if present < expected:
            _logger.warning(
                "Expected %d rows of %s up to step %d in %s, got %d: the others are "
                "lost, and a row with %s marks the gap.",
                *(expected, arm, step, self._path, present, _GAP),
            )
            self.write(arm, step, {_GAP: expected - present})


class SampleWriter(RowWriter):
    """Writer of attempts, one row each, that the report's sample browser reads.

    A row holds `arm`, `step`, `problem`, `statement`, `proof`, `status` (lower case),
    `messages` (`severity`, `line`, `column`, `end_line`, `end_column`, `text`; lines
    count from the proof's first line as 1, anything lower is in the statement),
    `feedback` and `reward` (or null), and for distilled attempts `tokens` and `kl`
    (nats for each token, null where it was not scored).
    """

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one attempt; NaN and infinities become null.

        Raises:
          DataError: the row has no arm or no step.
        """
        self._append(row)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file in the order written, without a torn last line.

    Raises:
      DataError: the file is missing, or a line before the last is not a row.
    """
    return read_rows(path)


def _number(value: SupportsFloat | None) -> float | int | None:
    """A Python number for JSON."""
    if value is None:
        return None
    return int(value) if isinstance(value, (int, np.integer)) else float(value)
