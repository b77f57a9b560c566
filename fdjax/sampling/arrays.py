"""Blocks and rows as the arrays that programs take; rows to spare are nobody's."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fdjax.sampling.programs import Blocks, Slots
from fdjax.sampling.schedule import Block, Row

__all__ = ["Sizes", "pack_blocks", "pack_slots"]


class Sizes(NamedTuple):
    """What does not change from call to call."""

    slots: int
    """Of each part of the mesh."""
    page: int
    """Tokens."""
    columns: int
    """Pages of the longest row."""
    words: int
    """Of a key."""


def pack_blocks(
    taken: Sequence[Sequence[Block]], width: int, sizes: Sizes
) -> tuple[Blocks, list[tuple[int, Block]]]:
    """Blocks of each part side by side, and each block with its place.

    Args:
      taken: of `Schedule.next_blocks`.
      width: rows of each part, as many blocks or more.
      sizes: of the arrays.
    """
    count = width * len(taken)
    arrays = Blocks(
        tokens=_zeros((count, sizes.page), np.int32),
        starts=_zeros((count,), np.int32),
        tables=_zeros((count, sizes.columns), np.int32),
        ends=_zeros((count,), np.int32),
        keys=_zeros((count, sizes.words), np.uint32),
        numbers=_zeros((count,), np.int32),
        temperature=_ones(count),
    )
    placed = []
    for part, blocks in enumerate(taken):
        for place, block in enumerate(blocks, start=part * width):
            request = block.row.request
            arrays.tokens[place, : len(block.tokens)] = block.tokens
            arrays.starts[place] = block.start
            arrays.ends[place] = len(block.tokens) - 1
            arrays.keys[place] = request.key
            arrays.numbers[place] = request.drawn
            arrays.temperature[place] = request.temperature
            _set_table(arrays.tables, place, block.row)
            placed.append((place, block))
    return arrays, placed


def pack_slots(
    rows: Sequence[Row], parts: int, sizes: Sizes
) -> tuple[Slots, list[tuple[int, Row]]]:
    """All slots, and each row with its place.

    Args:
      rows: those that are decoded.
      parts: of the mesh's batch.
      sizes: of the arrays.
    """
    count = parts * sizes.slots
    arrays = Slots(
        token=_zeros((count,), np.int32),
        length=_zeros((count,), np.int32),
        number=_zeros((count,), np.int32),
        budget=_zeros((count,), np.int32),
        active=_zeros((count,), bool),
        temperature=_ones(count),
        keys=_zeros((count, sizes.words), np.uint32),
        tables=_zeros((count, sizes.columns), np.int32),
    )
    placed = []
    for row in rows:
        place, request = row.part * sizes.slots + row.slot, row.request
        arrays.token[place] = request.tokens[request.length - 1]
        arrays.length[place] = row.written
        arrays.number[place] = request.drawn
        arrays.budget[place] = request.budget
        arrays.active[place] = True
        arrays.temperature[place] = request.temperature
        arrays.keys[place] = request.key
        _set_table(arrays.tables, place, row)
        placed.append((place, row))
    return arrays, placed


def _set_table(tables: Any, place: int, row: Row) -> None:
    tables[place, : len(row.pages)] = [page.number for page in row.pages]


def _ones(count: int) -> Any:
    return np.ones((count,), np.float32)


def _zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    return np.zeros(shape, dtype)
