"""Who is sampled when: requests into slots, prompts into blocks, pages to rows.

Nothing here looks at a clock or a device. Equal submissions and equal tokens lead to
equal decisions, so that every process of a run can make them by itself.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from fdjax.sampling.pool import Page, Pool
from fdjax.sampling.request import Request

__all__ = ["Block", "Row", "Schedule"]


@dataclass(eq=False)
class Row:
    """A request in a slot."""

    request: Request
    part: int
    slot: int
    """Among those of its part."""
    pages: list[Page]
    written: int = 0
    """Tokens whose keys and values lie in the pages."""
    entered: int = 0
    """Pages that the pool was told of."""
    ready: bool = False
    """Whether all but its last token is written, so that it can be decoded."""


class Block(NamedTuple):
    """A page of a row's tokens that is to be computed."""

    row: Row
    start: int
    tokens: Int32[np.ndarray, " n"]
    last: bool
    """Whether the logits after it are those of the row's next token."""


@dataclass
class Schedule:
    """Slots and pools of all parts, and who waits for them."""

    pools: list[Pool]
    slots: int
    """Of each part."""
    queue: deque[Request] = field(default_factory=deque)
    blocks: list[deque[Block]] = field(init=False)
    """Of each part, in order. A block comes after those that it reads: its row's
    earlier ones, and those of whoever it shares pages with."""
    reused: int = 0
    """Tokens of prompts that were found in pages."""
    preempted: int = 0
    """Rows that gave their pages back and began again."""

    def __post_init__(self) -> None:
        self.blocks = [deque() for _ in self.pools]
        self._rows: list[list[Row | None]] = [[None] * self.slots for _ in self.pools]

    def rows(self) -> Iterator[Row]:
        """All that are in a slot."""
        return (row for part in self._rows for row in part if row is not None)

    def ready(self) -> list[Row]:
        """Those that can be decoded, the first that came first."""
        ready = [row for row in self.rows() if row.ready]
        return sorted(ready, key=lambda row: row.request.number)

    def admit(self) -> None:
        """Gives slots and pages to those who wait, in order, while there are any."""
        while self.queue:
            request = self.queue[0]
            if not request.future.cancelled() and not self._place(request):
                return
            self.queue.popleft()

    def next_blocks(self, most: int) -> list[list[Block]]:
        """Up to `most` blocks of each part, which from now on count as written."""
        taken = [
            [blocks.popleft() for _ in range(min(most, len(blocks)))]
            for blocks in self.blocks
        ]
        for block in (block for part in taken for block in part):
            block.row.written = block.start + len(block.tokens)
            block.row.ready = block.last
        return taken

    def reserve(self, tokens: int) -> None:
        """Sees to it that each row that is decoded has pages for so many more tokens.

        Where there are none left, the youngest gives up its own, and waits in front of
        all others. Its tokens are kept. Once it has a slot again it goes on with the
        next one, which is the same whenever it is drawn.
        """
        for row in self.ready():
            if self._rows[row.part][row.slot] is not row:
                continue
            request, pool = row.request, self.pools[row.part]
            until = row.written + min(tokens, request.budget - request.drawn)
            while (lacking := -(-until // pool.size) - len(row.pages)) > 0:
                pages = pool.take(lacking)
                if pages is not None:
                    row.pages += pages
                    continue
                others = [other for other in self.ready() if other.part == row.part]
                self._preempt(others[-1])
                if others[-1] is row:
                    break

    def wrote(self, row: Row, tokens: int) -> None:
        """So many more of the row's tokens are in its pages."""
        row.written += tokens
        self._enter(row, row.written)

    def leave(self, row: Row) -> None:
        """Frees the row's slot; its pages are kept while there is room."""
        self._rows[row.part][row.slot] = None
        self.pools[row.part].let_go(row.pages)

    def clear(self) -> list[Request]:
        """Frees all slots and empties the queue.

        Returns:
          The requests that were there; those in slots come first.
        """
        left = [row.request for row in self.rows()] + [*self.queue]
        self.queue.clear()
        for part, blocks in enumerate(self.blocks):
            blocks.clear()
            self._rows[part] = [None] * self.slots
        return left

    def _preempt(self, row: Row) -> None:
        self.leave(row)
        self.preempted += 1
        older = [one for one in self.queue if one.number < row.request.number]
        self.queue.insert(len(older), row.request)

    def _place(self, request: Request) -> bool:
        """Puts the request into a slot, where most of its prompt is known already."""
        tokens = request.tokens[: request.length]
        options: list[tuple[int, int, int]] = []
        for part, rows in enumerate(self._rows):
            if free := rows.count(None):
                options.append((-len(self.pools[part].find(tokens)), -free, part))
        for *_, part in sorted(options):
            pages = self._pages(part, tokens)
            if pages is not None:
                self._fill(request, part, pages)
                return True
        return False

    def _pages(self, part: int, tokens: np.ndarray) -> tuple[int, list[Page]] | None:
        """How many pages were found, and all that the tokens need, if they are there.

        Each row that runs is left a page, so that none is sent away at once.
        """
        pool = self.pools[part]
        found = pool.find(tokens)
        pool.hold(found)
        lacking = -(-len(tokens) // pool.size) - len(found)
        running = self.slots - self._rows[part].count(None)
        fits = lacking + running <= pool.room
        new = pool.take(lacking) if fits else None
        if new is None:
            pool.let_go(found)
            return None
        return len(found), found + new

    def _fill(self, request: Request, part: int, pages: tuple[int, list[Page]]) -> None:
        found, all_pages = pages
        row = Row(request, part, self._rows[part].index(None), all_pages)
        size = self.pools[part].size
        row.written, row.entered = found * size, found
        self.reused += row.written
        self._rows[part][row.slot] = row
        # Before they are written: blocks are computed in order.
        self._enter(row, request.length)
        tokens = request.tokens[: request.length]
        self.blocks[part].extend(
            Block(row, at, tokens[at : at + size], at + size >= len(tokens))
            for at in range(row.written, len(tokens), size)
        )

    def _enter(self, row: Row, until: int) -> None:
        """Tells the pool of the row's full pages among its first tokens."""
        assert until <= row.request.length
        pool = self.pools[row.part]
        for index in range(row.entered, until // pool.size):
            before = row.pages[index - 1] if index else None
            tokens = row.request.tokens[index * pool.size : (index + 1) * pool.size]
            pool.enter(before, row.pages[index], tokens)
            row.entered = index + 1
