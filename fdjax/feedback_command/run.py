"""Asks a model about every attempt of a file, and records its answers."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from fdjax.errors import ConfigError, DataError
from fdjax.feedback import Attempt, Feedback, Watched, iterate_groups
from fdjax.feedback_command.display import Tally, progress_bar
from fdjax.feedback_command.options import FeedbackOptions
from fdjax.signals import first_stop_signal

__all__ = ["write_ahead"]


def write_ahead(attempts: Path, out: Path, options: FeedbackOptions) -> int:
    """Asks about every attempt of a file and records the answers.

    What is recorded already is not asked for again, so that a stopped command goes on
    where it was. Progress goes to stderr, a table to stdout. Call it in the main
    thread: it handles SIGINT and SIGTERM.

    Args:
      attempts: rows of a run's samples.jsonl (`iterate_groups`).
      out: recording to write, or to go on with.
      options: the model, and how it is asked.

    Returns:
      Exit code: 0 when there is feedback on all attempts, 1 when some is missing, 130
      or 143 when stopped.

    Raises:
      ConfigError: an option is wrong, or there is no key.
      DataError: a file cannot be read or written, or holds something else.
      FeedbackError: too much feedback is missing for the command to be of use.
      InstallError: the model's SDK is missing.
    """
    if out.exists() and out.samefile(attempts):
        raise ConfigError(
            f"--out: expected another file than the input, got {out}; name another one"
        )
    total = sum(len(group) for group in iterate_groups(attempts))
    if total == 0:
        raise DataError(
            f"expected attempts that were judged in {attempts}, got none: name the "
            "samples.jsonl of a run"
        )
    writer = options.config(out).make()
    console = Console(stderr=True)
    tally = Tally()
    with progress_bar(console) as bar:
        task = bar.add_task("", total=total, counts="")

        def show(notes: Sequence[Feedback]) -> None:
            tally.add(notes)
            bar.update(task, completed=tally.attempts, counts=tally.line())

        # Enough groups for all requests, also where a group is one attempt.
        stopped = asyncio.run(
            _write_all(writer, iterate_groups(attempts), show, 2 * options.concurrency)
        )
    Console().print(tally.table(out))
    if stopped:
        console.print(
            f"{signal.Signals(stopped).name}: stopped. What was answered is in {out}; "
            "run the same command again to go on.",
            soft_wrap=True,
            highlight=False,
        )
        return 128 + stopped
    if missing := tally.missing:
        console.print(
            f"{missing:,} of {total:,} attempts have no feedback. Run the same command "
            "again to ask about them once more; refusals are kept.",
            soft_wrap=True,
            highlight=False,
        )
    return int(tally.missing > 0)


async def _write_all(
    writer: Watched,
    groups: Iterator[list[Attempt]],
    show: Callable[[Sequence[Feedback]], None],
    at_once: int,
) -> int:
    """Feedback on all groups; the signal that stopped it, or 0."""
    stopped = 0
    loop = asyncio.get_running_loop()
    work = loop.create_task(_write_some_at_once(writer, groups, show, at_once))

    def stop(number: int) -> None:
        nonlocal stopped
        stopped = number
        loop.call_soon_threadsafe(work.cancel)

    try:
        with first_stop_signal(stop), suppress(asyncio.CancelledError):
            await work
    finally:
        await writer.aclose()
    return stopped


async def _write_some_at_once(
    writer: Watched,
    groups: Iterator[list[Attempt]],
    show: Callable[[Sequence[Feedback]], None],
    at_once: int,
) -> None:
    """Reads a group when another one is finished: files may be of any length."""

    async def write(group: list[Attempt]) -> None:
        show(await writer.write(group))

    running: set[asyncio.Task[None]] = set()
    try:
        for group in groups:
            running.add(asyncio.create_task(write(group)))
            if len(running) >= at_once:
                running = await _rest(running)
        while running:
            running = await _rest(running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _rest(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Those that are not finished when one is; raises what that one raised."""
    finished, rest = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in finished:
        task.result()
    return rest
