"""Fenced blocks in what a model writes, read line by line, and its thinking."""

import re
from dataclasses import dataclass

from fdjax.lean.facts.lexer import Token, tokens
from fdjax.lean.facts.source import as_read

__all__ = ["CLOSING", "LANGUAGES", "OPENING", "Block", "Written", "block_at", "read"]

LANGUAGES = frozenset(("lean", "lean4", "tactic", "tactics"))
"""Marks of blocks that hold Lean."""
OPENING, CLOSING = "<think>", "</think>"
"""Tags around a model's thinking."""

_FARTHEST = 10_000
"""How many characters of a block are read for comments: each block is read anew, and a
model that repeats itself writes thousands of them."""
_FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<ticks>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)")
_MARK = re.compile(r"[{.]*(\w*)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """What stands between two fences."""

    mark: str
    """The first word behind the opening fence, in lower case; may be empty."""
    start: int
    """Characters of the text before the block's first line."""
    text: str
    """Its lines as Lean reads them, each less the indentation of the opening fence."""
    closed: bool
    """Whether it has a closing fence."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a model wrote behind its last thinking."""

    blocks: tuple[Block, ...] = ()
    """In their order; those of nothing but blanks are left out."""
    is_thinking: bool = False
    """Whether the text ends inside the model's thinking."""


def read(text: str) -> Written:
    r"""The blocks of a text.

    Fences are Markdown's: three or more backticks or tildes, closed by as many or more
    of their kind on a line of their own. They differ in three points. A fence may be
    indented as far as it likes, as in a list. The opening fence of a block of Lean also
    ends the block before it, which someone forgot to close. And in a block of Lean a
    fence inside a comment is a part of the comment.

    `<think>` outside a block begins thinking, the next `</think>` ends it; neither it
    nor what stands before it counts. Inside a block both are text.

    >>> [block] = read("<think>simp?</think>\n```lean4\nomega\n```\n").blocks
    >>> block.mark, block.text
    ('lean4', 'omega\n')
    """
    blocks: list[Block] = []
    position = 0
    while position < len(text):
        end = _line_end(text, position)
        fence = _FENCE.fullmatch(text[position:end].rstrip())
        if fence:
            block, end = block_at(
                text,
                end,
                mark=_mark(fence),
                ticks=fence["ticks"],
                indent=fence["indent"],
            )
            blocks.append(block)
        elif (tag := _first_tag(text, position, end)) is not None:
            end = _behind_thinking(text, tag)
            if end is None:
                return Written(is_thinking=True)
            blocks.clear()
        position = end
    return Written(
        blocks=tuple(each for each in blocks if each.text.strip() or not each.closed)
    )


def block_at(
    text: str, start: int, *, mark: str = "lean4", ticks: str = "```", indent: str = ""
) -> tuple[Block, int]:
    """The block whose first line begins at `start`, and where the text goes on.

    Args:
      text: the whole.
      start: the position behind the opening fence's line.
      mark: the block's mark.
      ticks: the opening fence itself.
      indent: the blanks before it.
    """
    comments = _Comments(text, start) if mark in LANGUAGES else None
    position, goes_on, closed = start, len(text), False
    while position < len(text):
        end = _line_end(text, position)
        fence = _FENCE.fullmatch(text[position:end].rstrip())
        if (
            fence
            and fence["ticks"].startswith(ticks)
            and not (comments and comments.cover(position))
        ):
            closed = not fence["info"]
            if closed or _mark(fence) in LANGUAGES:
                goes_on = end if closed else position
                break
        position = end
    lines = as_read(text[start:position]).split("\n")
    block = Block(
        mark=mark,
        start=start,
        text="\n".join(line.removeprefix(indent) for line in lines),
        closed=closed,
    )
    return block, goes_on


class _Comments:
    """Where Lean's block comments are in the text of a block; read as far as asked."""

    def __init__(self, text: str, start: int) -> None:
        self._start = start
        self._tokens = tokens(text[start : start + _FARTHEST])
        self._last: Token | None = None

    def cover(self, position: int) -> bool:
        """Whether a line that begins there begins inside a comment that ends.

        Positions are asked for in their order.
        """
        position -= self._start
        while self._last is None or self._last.end <= position:
            self._last = next(self._tokens, None)
            if self._last is None:
                return False
        last = self._last
        return last.kind == "comment" and last.start < position


def _line_end(text: str, position: int) -> int:
    """The position behind the line break."""
    return text.find("\n", position) + 1 or len(text)


def _mark(fence: re.Match[str]) -> str:
    found = _MARK.match(fence["info"].lower())
    return found[1] if found else ""


def _first_tag(text: str, start: int, end: int) -> int | None:
    """The position of the first tag of thinking in a part of a text."""
    places = [text.find(tag, start, end) for tag in (OPENING, CLOSING)]
    return min((place for place in places if place >= 0), default=None)


def _behind_thinking(text: str, tag: int) -> int | None:
    """Where a text goes on behind the tag at a position; None where thinking goes on.

    A closing tag without an opening one ends thinking that the prompt began.
    """
    if text.startswith(CLOSING, tag):
        return tag + len(CLOSING)
    end = text.find(CLOSING, tag)
    return None if end < 0 else end + len(CLOSING)
