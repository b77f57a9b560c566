"""Ragged token lists to rectangular arrays: prompts end together, responses start so.

Left-padded prompts beside right-padded responses put every response at the same
columns, whatever stands before it: the student's prompt or the teacher's longer one.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32

from fdjax.errors import DataError
from fdjax.ranges import Whole, require

__all__ = ["pad_left", "pad_right", "padded_width"]

Row = Sequence[int] | Int32[np.ndarray, " _"]
"""Token ids."""


def padded_width(lengths: Sequence[int], multiple: int = 16) -> int:
    """The longest length rounded up to `multiple`, so that few shapes are compiled."""
    return max(1, -(-max(lengths, default=1) // multiple)) * multiple


def pad_left(
    rows: Sequence[Row], *, width: int, pad: int
) -> tuple[Int32[np.ndarray, "B width"], Bool[np.ndarray, "B width"]]:
    """Right-aligned tokens and where they are valid.

    Raises:
      ConfigError: `width` is not positive, or `pad` is no token id.
      DataError: a row is longer than `width`.
    """
    return _pad(rows, width=width, pad=pad, left=True)


def pad_right(
    rows: Sequence[Row], *, width: int, pad: int
) -> tuple[Int32[np.ndarray, "B width"], Bool[np.ndarray, "B width"]]:
    """Left-aligned tokens and where they are valid.

    Raises:
      ConfigError: `width` is not positive, or `pad` is no token id.
      DataError: a row is longer than `width`.
    """
    return _pad(rows, width=width, pad=pad, left=False)


def _pad(
    rows: Sequence[Row], *, width: int, pad: int, left: bool
) -> tuple[Int32[np.ndarray, "B width"], Bool[np.ndarray, "B width"]]:
    require("width", width, Whole(1))
    require("pad", pad, Whole(0))
    tokens = np.full((len(rows), width), pad, np.int32)
    valid = np.zeros((len(rows), width), bool)
    for index, row in enumerate(rows):
        length = len(row)
        if length > width:
            raise DataError(
                f"Expected at most {width} tokens in row {index}, got {length}; drop "
                "the row or raise the length limit in the configuration."
            )
        place = slice(width - length, width) if left else slice(0, length)
        tokens[index, place] = row
        valid[index, place] = True
    return tokens, valid
