"""From a file of submissions to a file of verdicts."""

import signal
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from fdjax.errors import ConfigError, DataError
from fdjax.lean.engine.verifier import Verifier
from fdjax.lean.facts.verdict import Status, Verdict
from fdjax.verify.display import ProgressDisplay, summary
from fdjax.verify.options import VerifyOptions
from fdjax.verify.rows import (
    Standing,
    SubmissionRow,
    Tally,
    VerdictFile,
    iterate_submissions,
)
from fdjax.verify.stop import StoppedError, StopSignal, stop_on_signal

__all__ = ["verify_file"]

BLOCK = 4096
"""Rows in memory at a time; more than that per worker would idle at a block's end."""
BLOCK_PER_WORKER = 256
REWRITE_S = 60.0
"""Least time between two rewritings of the output, for verdicts on crashed rows."""

_SKIPPED = Verdict(
    status=Status.CRASHED, reason="the run ended before there was a verdict"
)

Item = TypeVar("Item")


def verify_file(
    submissions: Path, verdicts: Path, options: VerifyOptions | None = None
) -> int:
    """Verify every row of a file and write one row for each, in the same order.

    Where `verdicts` has rows of an earlier run, the rest is verified and appended, and
    then rows that were CRASHED are tried again. Progress goes to stderr, a summary to
    stdout. Call it in the main thread: it handles SIGINT and SIGTERM.

    Args:
      submissions: JSON lines with `name`, `statement`, `proof` or `source`, and perhaps
        `header`.
      verdicts: JSON lines to write.
      options: backend, limits, cache.

    Returns:
      Exit code: 0 when all rows are decided, 1 when some are CRASHED, 130 or 143 when
      stopped by SIGINT or SIGTERM.

    Raises:
      BackendError, InstallError: Lean cannot be started; what was decided is kept.
      ConfigError: the options do not fit together, or the files are one.
      DataError: `submissions` is no regular file, changes meanwhile, or has a row that
        is not as described; `verdicts` belongs to another input, or cannot be written.
    """
    options = options or VerifyOptions()
    console = Console(stderr=True)
    with stop_on_signal() as stop:
        try:
            return _verify_file(submissions, verdicts, options, console, stop)
        except StoppedError as stopped:
            console.print(
                f"{signal.Signals(stopped.number).name}: stopped. What was decided is "
                f"in {verdicts}; run the same command again (without --overwrite) to "
                "go on.",
                soft_wrap=True,
                highlight=False,
            )
            return 128 + stopped.number


def _verify_file(
    submissions: Path,
    verdicts: Path,
    options: VerifyOptions,
    console: Console,
    stop: StopSignal,
) -> int:
    backend, limits = options.backend_config(), options.limits()
    options.check_cache()
    _require_regular(submissions)
    with VerdictFile(verdicts) as file:
        if file.path.samefile(submissions):
            raise ConfigError(
                f"--out: expected another file than the input, got {verdicts}; the "
                "input would be lost: name another one."
            )
        standing = _standing(submissions, file, overwrite=options.overwrite)
        with (
            Verifier(
                backend.make,
                workers=options.number_of_workers(),
                limits=limits,
                cache_path=options.cache,
            ) as verifier,
            ProgressDisplay(console, standing) as display,
        ):
            _Run(
                verifier=verifier,
                file=file,
                tally=standing.tally,
                display=display,
                stop=stop,
                size=max(BLOCK, BLOCK_PER_WORKER * options.number_of_workers()),
            ).verify(submissions, standing)
            table = summary(
                verdicts,
                standing.tally,
                statistics=verifier.statistics,
                decided=display.decided,
                seconds=display.seconds,
            )
    Console().print(table)
    crashed = standing.tally.crashed
    if crashed:
        console.print(
            f"{crashed:,} of {standing.total:,} rows are CRASHED: the checker failed, "
            "which says nothing about their proofs. Run the same command again "
            "(without --overwrite) to try them once more.",
            soft_wrap=True,
            highlight=False,
        )
    return int(crashed > 0)


def _require_regular(submissions: Path) -> None:
    """Refuse what cannot be read a second time, before anything is made."""
    try:
        mode = submissions.stat().st_mode
    except OSError as error:
        raise DataError(
            f"Expected a JSONL file at {submissions}, got {error}; correct the path."
        ) from error
    if not stat.S_ISREG(mode):
        raise DataError(
            f"Expected a regular file at {submissions}, got a pipe, a device or a "
            "folder; it is read more than once: write the rows to a file first."
        )


def _standing(submissions: Path, file: VerdictFile, *, overwrite: bool) -> Standing:
    """Check the whole input before Lean starts, and how much of it is done."""
    rows = iterate_submissions(submissions)
    standing = Standing(total=_length(rows)) if overwrite else file.check(rows)
    if standing.total == 0:
        raise DataError(
            f"Expected at least one row in {submissions}, got an empty file; name "
            "another one."
        )
    if overwrite:
        file.clear()
    return standing


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Blocks of rows on their way through the verifier."""

    verifier: Verifier
    file: VerdictFile
    tally: Tally
    """All verdicts in the file."""
    display: ProgressDisplay
    stop: StopSignal
    size: int
    """Rows in a block."""

    def verify(self, path: Path, standing: Standing) -> None:
        """First what has no verdict, then what crashed in an earlier run.

        Raises:
          DataError: the file has more or fewer rows than when they were counted.
        """
        written = standing.tally.rows
        for rows in _blocks(
            islice(iterate_submissions(path), written, None), self.size
        ):
            self._append(rows)
        if self.tally.rows != standing.total:
            raise DataError(
                f"Expected {standing.total:,} rows in {path} as when they were "
                f"counted, got {self.tally.rows:,}: the input changed while it was "
                "read; run the same command again when nothing writes it."
            )
        if standing.crashed:
            crashed = frozenset(standing.crashed)
            old = enumerate(islice(iterate_submissions(path), written))
            again = (item for item in old if item[0] in crashed)
            for items in _blocks(again, self.size):
                self._replace(items)

    def _append(self, rows: list[SubmissionRow]) -> None:
        """Verify rows and write each as soon as all before it are written."""
        waiting: dict[int, Verdict] = {}
        written = 0

        def decided(index: int, verdict: Verdict) -> None:
            nonlocal written
            with self.stop.held():
                self._count(verdict)
                waiting[index] = verdict
                while written in waiting:
                    self.file.append(rows[written], waiting[written])
                    del waiting[written]
                    written += 1

        try:
            self._verify(rows, decided)
        finally:
            # After a stop, rows decided ahead of their turn are kept, too; those
            # between them count as crashed and are tried again by the next run.
            with self.stop.held():
                for index in range(written, max(waiting, default=-1) + 1):
                    self.file.append(rows[index], waiting.get(index, _SKIPPED))

    def _replace(self, items: list[tuple[int, SubmissionRow]]) -> None:
        """Verify rows that crashed and put the verdicts in their places."""
        verdicts: dict[int, tuple[SubmissionRow, Verdict]] = {}
        rewritten = time.monotonic()

        def decided(index: int, verdict: Verdict) -> None:
            nonlocal rewritten
            place, row = items[index]
            with self.stop.held():
                self.tally.statuses[Status.CRASHED] -= 1
                self._count(verdict)
                verdicts[place] = row, verdict
                if time.monotonic() - rewritten >= REWRITE_S:
                    self.file.replace(verdicts)
                    verdicts.clear()
                    rewritten = time.monotonic()

        try:
            self._verify([row for _, row in items], decided)
        finally:
            with self.stop.held():
                if verdicts:
                    self.file.replace(verdicts)

    def _verify(
        self, rows: list[SubmissionRow], decided: Callable[[int, Verdict], None]
    ) -> None:
        self.verifier.verify(
            [(row.problem, row.submission) for row in rows],
            decided=decided,
            broken_statements="reject",
        )

    def _count(self, verdict: Verdict) -> None:
        self.tally.add(verdict.status, verdict.seconds)
        self.display.update()


def _blocks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while block := list(islice(iterator, size)):
        yield block


def _length(items: Iterable[object]) -> int:
    return sum(1 for _ in items)
