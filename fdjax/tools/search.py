"""Words in the Lean files below a folder: by ripgrep where it is, else line by line."""

import asyncio
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

from fdjax.tools.tool import ToolError

__all__ = ["Hit", "find", "find_by_ripgrep", "find_line_by_line", "words_of"]

WORDS = 8
"""The most words of a search."""
RIPGREP_S = 60.0
"""Of one that runs; before, it waits for its turn."""
RIPGREPS = os.cpu_count() or 1
"""Programs that run at a time: hundreds of episodes may search at once, and each would
take descriptors, and the time of all others."""
SKIPPED = (".git", "build")
"""Folders that hold no sources."""
_SUFFIX = ".lean"
_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
    WeakKeyDictionary()
)
"""Of the programs of each event loop."""


class Hit(NamedTuple):
    """A line that has all the words."""

    path: str
    """Below the folder, with `/`."""
    line: int
    """From 1 on."""
    text: str
    """Without blanks at its ends."""


def words_of(text: str) -> list[str]:
    """The words of a search; they must stand in this order on a line.

    Raises:
      ToolError: there are none, or too many.
    """
    words = text.split()
    if not words or len(words) > WORDS:
        raise ToolError(f"a search takes 1 to {WORDS} words, not {len(words)}")
    return words


async def find(folder: Path, words: Sequence[str], hits: int) -> list[Hit]:
    """The first lines below a folder that have the words in order.

    Capital letters count where a word has one. Files come in the order of their paths,
    folder by folder; links are not followed.
    """
    program = shutil.which("rg")
    if program is None:
        return await asyncio.to_thread(find_line_by_line, folder, words, hits)
    return await find_by_ripgrep(program, folder, words, hits)


def find_line_by_line(folder: Path, words: Sequence[str], hits: int) -> list[Hit]:
    """`find` without any other program."""
    fold = not any(map(_has_capital, words))
    found: list[Hit] = []
    for path in _files(folder):
        content = path.read_bytes()
        for number, line in enumerate(content.split(b"\n"), start=1):
            text = line.decode(errors="replace")
            if _has(text.lower() if fold else text, words):
                name = path.relative_to(folder).as_posix()
                found.append(Hit(name, number, text.strip()))
                if len(found) == hits:
                    return found
    return found


async def find_by_ripgrep(
    program: str, folder: Path, words: Sequence[str], hits: int
) -> list[Hit]:
    """`find` with the program ripgrep.

    Raises:
      ToolError: it took too long.
    """
    case = "--case-sensitive" if any(map(_has_capital, words)) else "--ignore-case"
    command = [
        *(program, "--no-config", "--no-messages", "--no-ignore", "--hidden", "--text"),
        *("--line-number", "--no-heading", "--with-filename", "--null"),
        *("--color=never", "--sort=path", f"--max-count={hits}", case),
        *(f"--glob=*{_SUFFIX}", *(f"--glob=!{name}/" for name in SKIPPED)),
        *("--regexp", ".*".join(map(re.escape, words)), "--", "."),
    ]
    loop = asyncio.get_running_loop()
    async with _TURNS.setdefault(loop, asyncio.Semaphore(RIPGREPS)):
        return await _hits(command, folder, hits)


async def _hits(command: Sequence[str], folder: Path, hits: int) -> list[Hit]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=1 << 22,
    )
    assert process.stdout is not None
    found: list[Hit] = []
    try:
        async with asyncio.timeout(RIPGREP_S):
            while line := await process.stdout.readline():
                path, _, rest = line.decode(errors="replace").partition("\0")
                number, _, text = rest.partition(":")
                found.append(Hit(path.removeprefix("./"), int(number), text.strip()))
                if len(found) == hits:
                    break
            else:
                await process.wait()
    except TimeoutError as error:
        raise ToolError("the search took too long; use longer words") from error
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    return found


def _has_capital(word: str) -> bool:
    return word != word.lower()


def _has(line: str, words: Sequence[str]) -> bool:
    position = 0
    for word in words:
        position = line.find(word, position)
        if position < 0:
            return False
        position += len(word)
    return True


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder in ripgrep's order: each folder's entries by name."""
    for entry in sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name)):
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in SKIPPED:
                yield from _files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False) and entry.name.endswith(_SUFFIX):
            yield Path(entry.path)
