"""Which page holds what: a free list, and a tree of what is known by its tokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int32

__all__ = ["Page", "Pool"]


@dataclass(eq=False, slots=True)
class Page:
    """A page in use, or kept because its prefix may come again."""

    number: int
    """Its place on the device."""
    users: int = 0
    """Rows whose sequence runs through it."""
    parent: "Page | None" = None
    """The page before it in the tree; None outside the tree."""
    tokens: bytes = b""
    """What it holds, where it is in the tree."""
    children: dict[bytes, "Page"] = field(default_factory=dict)
    """Pages that follow it, by what they hold."""


class Pool:
    """Pages of one part of a mesh's batch.

    A full page enters a tree by its tokens, below the page before it: so it is found by
    its whole prefix. Rows with a common prefix share its pages. Those that no row uses
    stay until room is needed; the one that was let go longest ago goes first, after
    all that follow it. Nothing depends on a clock: equal calls leave equal pools.
    """

    def __init__(self, count: int, size: int) -> None:
        """An empty one.

        Args:
          count: pages on the device; the first is nobody's.
          size: tokens of a page.
        """
        self.size = size
        self.count = count
        self.forget()

    def forget(self) -> None:
        """Empties the tree, when weights change; no row may use a page."""
        self._root = Page(0)
        self._free = list(range(self.count - 1, 0, -1))
        self._kept: dict[Page, None] = {}
        self._unused = 0

    @property
    def room(self) -> int:
        """Pages that `take` can give."""
        return len(self._free) + self._unused

    def find(self, tokens: Int32[np.ndarray, " S"]) -> list[Page]:
        """Pages that hold the longest known prefix, but never the last token.

        That one is computed in any case, for the logits after it.
        """
        found, at = [], self._root
        for start in range(0, len(tokens) - self.size, self.size):
            child = at.children.get(tokens[start : start + self.size].tobytes())
            if child is None:
                break
            found.append(child)
            at = child
        return found

    def hold(self, pages: Iterable[Page]) -> None:
        """One more row uses them."""
        for page in pages:
            if not page.users:
                self._unused -= 1
                self._kept.pop(page, None)
            page.users += 1

    def take(self, count: int) -> list[Page] | None:
        """So many pages for one row, outside the tree; None if there is no room."""
        if count > self.room:
            return None
        while len(self._free) < count:
            self._evict()
        return [Page(self._free.pop(), users=1) for _ in range(count)]

    def let_go(self, pages: Sequence[Page]) -> None:
        """One row less uses its pages, given in order."""
        for page in reversed(pages):
            page.users -= 1
            if page.users:
                continue
            if page.parent is None:
                self._free.append(page.number)
                continue
            self._unused += 1
            self._keep(page)

    def enter(self, before: Page | None, page: Page, tokens: np.ndarray) -> None:
        """Puts a full page into the tree, unless the same tokens are there already.

        Args:
          before: the page before it in its row; None for the first.
          page: of `take`.
          tokens: what it holds.
        """
        at = before or self._root
        # What follows a page that is not in the tree cannot be found either.
        lost = at is not self._root and at.parent is None
        held = tokens.tobytes()
        if lost or held in at.children:
            return
        page.parent, page.tokens = at, held
        at.children[held] = page

    def _keep(self, page: Page) -> None:
        if page is not self._root and not page.users and not page.children:
            self._kept[page] = None

    def _evict(self) -> None:
        page = next(iter(self._kept))
        del self._kept[page]
        parent = page.parent
        assert parent is not None
        del parent.children[page.tokens]
        page.parent = None
        self._free.append(page.number)
        self._unused -= 1
        self._keep(parent)
