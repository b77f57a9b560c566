"""Tools that look into a library: search it, read lines of its files."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fdjax.tools.search import find, words_of
from fdjax.tools.tool import Parameter, ToolError, ToolSpec
from fdjax.tools.workspace import opened_below

__all__ = [
    "READ_LIBRARY",
    "SEARCH_LIBRARY",
    "Library",
    "ReadLibrary",
    "SearchLibrary",
]

HITS = 5
"""Lines that a search shows."""
LINES = 50
"""Lines that a reader is shown at once."""
LINE_CHARACTERS = 500
"""Of a line that is shown; statements of core's lemmas are shorter but for a few."""
READ_BYTES = 1 << 24
"""Of a file that is looked at."""

Explain = Callable[[Sequence[str]], Awaitable[list[str]]]


@dataclass(frozen=True, kw_only=True)
class Library:
    """Lean files below a folder, such as a Lake project with its packages."""

    folder: Path
    explain: Explain | None = None
    """Given lines that are shown, what is shown instead; None shows them as they are.
    """

    async def shown(self, lines: Sequence[str]) -> list[str]:
        """The lines as the model reads them."""
        if self.explain is not None:
            lines = await self.explain(lines)
        return [line[:LINE_CHARACTERS] for line in lines]


SEARCH_LIBRARY = ToolSpec(
    name="search_library",
    description=(
        f"Search the Lean library for lines with these words, in this order; the "
        f"first {HITS} are shown as file:line:text."
    ),
    parameters=(
        Parameter(
            name="text",
            type="string",
            description="Words or parts of words, such as Nat.sub add_comm.",
            most=200,
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class SearchLibrary:
    """Finds lines of a library."""

    library: Library
    spec: ToolSpec = SEARCH_LIBRARY

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """The hits (`Tool`)."""
        words = words_of(arguments["text"])
        found = await find(self.library.folder, words, HITS + 1)
        if not found:
            return "Nothing was found."
        texts = await self.library.shown([hit.text for hit in found[:HITS]])
        lines = [
            f"{hit.path}:{hit.line}:{text}"
            for hit, text in zip(found, texts, strict=False)
        ]
        return "\n".join([*lines, *(["There are more."] if len(found) > HITS else [])])


READ_LIBRARY = ToolSpec(
    name="read_library",
    description=f"Read at most {LINES} lines of a file of the Lean library.",
    parameters=(
        Parameter(
            name="path",
            type="string",
            description="The file, as search_library names it.",
            most=400,
        ),
        Parameter(
            name="first_line",
            type="integer",
            description="Number of the first line.",
            default=1,
            least=1,
            most=10**7,
        ),
        Parameter(
            name="lines",
            type="integer",
            description="How many lines.",
            default=LINES,
            least=1,
            most=LINES,
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class ReadLibrary:
    """Shows lines of a library's file."""

    library: Library
    spec: ToolSpec = READ_LIBRARY

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """The lines, numbered (`Tool`)."""
        first = arguments["first_line"]
        lines = await asyncio.to_thread(self._lines, arguments["path"])
        if first > len(lines):
            raise ToolError(f"the file has {len(lines)} lines")
        part = lines[first - 1 : first - 1 + arguments["lines"]]
        shown = await self.library.shown(part)
        numbered = [f"{number}: {line}" for number, line in enumerate(shown, first)]
        left = len(lines) - (first - 1 + len(part))
        more = [f"({left} more lines)"] if left > 0 else []
        return "\n".join([*numbered, *more])

    def _lines(self, path: str) -> list[str]:
        if not path.endswith(".lean"):
            raise ToolError("the files of the library end in .lean")
        try:
            with (
                opened_below(
                    self.library.folder, path.split("/"), os.O_RDONLY
                ) as descriptor,
                os.fdopen(os.dup(descriptor), "rb") as file,
            ):
                content = file.read(READ_BYTES)
        except OSError as error:
            raise ToolError(f"`{path}` cannot be read: {error.strerror}") from error
        text = content.decode(errors="replace").removesuffix("\n")
        return [line.rstrip() for line in text.split("\n")]
