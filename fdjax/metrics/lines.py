"""JSON lines with an arm and a step, in a file that survives a crash at any moment."""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from fdjax.encoding import encode
from fdjax.errors import DataError
from fdjax.files import replacing
from fdjax.jsonl import LineFile, row_of, whole_rows

__all__ = ["RowWriter", "read_rows"]

_KEYS = ("arm", "step")


class RowWriter:
    """What writers of rows share: a file of objects with at least `arm` and `step`.

    A row is in the file when it has been appended. A run that is killed can leave at
    most a torn last line, which the next writer cuts off. One writer at a time: of
    several processes the first has the file, and the others write nothing.
    """

    def __init__(self, path: Path | None) -> None:
        """Open the file for appending, creating it and cutting off a torn line.

        Args:
          path: the JSON lines file; its folder exists. With None nothing is written.
        """
        self._path = path
        self._lines = None if path is None else _open_whole_lines(path)

    def _append(self, row: Mapping[str, Any]) -> None:
        if not row.keys() >= set(_KEYS):
            raise DataError(
                f"expected a row with arm and step, got {sorted(row)}: resuming drops "
                "rows by these two"
            )
        if self._lines is not None:
            self._lines.append(encode(row))

    def truncate_after(self, arm: str, step: int) -> None:
        """Drop the rows of an arm that are later than a step, before a resume.

        The file is replaced as a whole; rows of other arms stay.

        Args:
          arm: the arm that resumes.
          step: last step of the arm that the checkpoint holds.

        Raises:
          DataError: a line before the last is damaged; the file stays as it was.
        """
        if self._path is None or self._lines is None:
            return
        with replacing(self._path) as file:
            for line, row in whole_rows(self._path, _KEYS):
                if row["arm"] != arm or row["step"] <= step:
                    file.write(line)
        self._lines.close()
        self._lines = _open_whole_lines(self._path)

    def close(self) -> None:
        """Flush to the disk and close; nothing can be written afterwards."""
        if self._lines is not None:
            self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file in the order written, without a torn last line.

    Raises:
      DataError: the file is missing, or a line before the last is not a row.
    """
    return [row for _, row in whole_rows(path, _KEYS)]


def _open_whole_lines(path: Path) -> LineFile:
    """The file for appending, with a last line that is no row cut off."""
    file = LineFile(path)
    with path.open("rb") as lines:
        last = b"".join(deque(lines, maxlen=1))
    if last and row_of(last, _KEYS) is None:
        file.cut(file.size - len(last))
    return file
