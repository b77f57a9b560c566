"""JSON lines with an arm and a step, in a file that survives a crash at any moment."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from fdjax.errors import DataError

__all__ = ["RowFile", "read_rows"]


class RowFile:
    """Append-only file of JSON objects that hold at least `arm` and `step`.

    Each row is one line, handed to the operating system in one write before `append`
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

    def append(self, row: Mapping[str, Any]) -> None:
        """Append a row; floats that JSON cannot hold become null.

        Raises:
          DataError: the row has no arm or no step.
        """
        if not {"arm", "step"} <= row.keys():
            raise DataError(
                f"expected a row with arm and step, got {sorted(row)}: resuming drops "
                "rows by these two"
            )
        text = json.dumps(_finite(row), allow_nan=False, ensure_ascii=False)
        self._file.write(text.encode() + b"\n")

    def truncate_after(self, arm: str, step: int) -> None:
        """Drop the rows of an arm that are later than a step, before a resume.

        The file is replaced as a whole; rows of other arms stay.

        Args:
          arm: the arm that resumes.
          step: last step of the arm that the checkpoint holds.

        Raises:
          DataError: a line before the last is damaged; the file stays as it was.
        """
        unfinished = self._path.with_name(self._path.name + ".tmp")
        with unfinished.open("wb") as file:
            for line, row in _whole_rows(self._path):
                if row["arm"] != arm or row["step"] <= step:
                    file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._file.close()
        os.replace(unfinished, self._path)
        self._file = _open_whole_lines(self._path)

    def close(self) -> None:
        """Flush to the disk and close; nothing can be appended afterwards."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file in the order written, without a torn last line.

    Raises:
      DataError: the file is missing, or a line before the last is not a row.
    """
    return [row for _, row in _whole_rows(path)]


def _whole_rows(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each line with its row; a last line that is torn is left out."""
    damaged = None
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise DataError(
            f"expected a file of rows at {path}, got none: give the run's folder"
        ) from error
    with file:
        for number, line in enumerate(file, start=1):
            if damaged is not None:
                raise DataError(
                    f"expected a JSON object with arm and step in line {number - 1} of "
                    f"{path}, got {damaged[:60]!r}: repair or remove the line"
                )
            row = _row(line)
            if row is None:
                damaged = line
            else:
                yield line, row


def _row(line: bytes) -> dict[str, Any] | None:
    """The row of a line; None when the line is torn or something else."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"arm", "step"} <= row.keys() else None


def _open_whole_lines(path: Path) -> FileIO:
    """Open for unbuffered appending, with a last line that is no row cut off."""
    file = path.open("ab", buffering=0)
    position = 0
    with path.open("rb") as lines:
        last = b""
        for line in lines:
            position += len(line)
            last = line
    if last and _row(last) is None:
        os.truncate(path, position - len(last))
    return file


def _finite(value: Any) -> Any:
    """The same JSON value with null in place of NaN and infinities."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
