"""Metrics of a run as JSON lines that survive a crash at any moment."""

import json
import math
import os
import time
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat

import numpy as np

from fdjax.errors import ConfigError, DataError

__all__ = ["MetricsWriter", "read_metrics"]

_RESERVED = frozenset({"arm", "step", "time"})


class MetricsWriter:
    """Append-only writer of metric rows: `{"arm", "step", "time", key: value, …}`.

    Each row is one line, handed to the operating system in one write before `write`
    returns. A run that is killed can leave at most a torn last line, which the next
    writer cuts off. One writer at a time, on process 0.
    """

    def __init__(self, path: Path) -> None:
        """Open the file for appending, creating it and cutting off a torn line.

        Args:
          path: the JSON lines file; its folder exists.
        """
        self._path = path
        self._file = _open_whole_lines(path)

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
        row |= {key: _number(value) for key, value in values.items()}
        self._file.write(_line(row))

    def truncate_after(self, arm: str, step: int) -> None:
        """Drop the rows of an arm that are later than a step, before a resume.

        The file is replaced as a whole; rows of other arms stay.

        Args:
          arm: the arm that resumes.
          step: last step of the arm that the checkpoint holds.
        """
        self._file.close()
        kept = [
            row
            for row in read_metrics(self._path)
            if row["arm"] != arm or row["step"] <= step
        ]
        unfinished = self._path.with_name(self._path.name + ".tmp")
        with unfinished.open("wb") as file:
            file.writelines(_line(row) for row in kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self._path)
        self._file = _open_whole_lines(self._path)

    def close(self) -> None:
        """Flush to the disk and close; the writer cannot be used afterwards."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file in the order written, without a torn last line.

    Raises:
      DataError: the file is missing, or a line before the last is not a row.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError as error:
        raise DataError(
            f"expected a metrics file at {path}, got none: give the run's folder"
        ) from error
    rows: list[dict[str, Any]] = []
    # What follows the last newline is empty or torn.
    for number, line in enumerate(lines[:-1], start=1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines) - 1:
            raise DataError(
                f"expected a JSON object with arm and step in line {number} of {path}, "
                f"got {line[:60]!r}: repair or remove the line"
            )
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    """The row of a line; None when the line is not one."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"arm", "step"} <= row.keys() else None


def _open_whole_lines(path: Path) -> FileIO:
    """Open for unbuffered appending, with a last line that is no row cut off."""
    file = path.open("ab", buffering=0)
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    last = content.rfind(b"\n", 0, max(whole - 1, 0)) + 1
    if whole and _row(content[last:whole]) is None:
        whole = last
    if whole < len(content):
        os.truncate(path, whole)
    return file


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _number(value: SupportsFloat | None) -> float | int | None:
    """A JSON number, or None for what JSON cannot hold."""
    if value is None:
        return None
    if isinstance(value, (int, np.integer)):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
