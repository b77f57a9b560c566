"""Check proofs: cache, safety scan, worker pool, judgement."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

from fdjax.errors import BackendError, DataError
from fdjax.lean.embedded.wasm import WasmBackend
from fdjax.lean.engine.cache import VerdictCache, cache_setting, verdict_key
from fdjax.lean.engine.pool import Cancellation, WorkerPool
from fdjax.lean.facts.backend import (
    DEFAULT_LIMITS,
    Backend,
    CheckRequest,
    Limits,
    RawReport,
    RunRequest,
    Submission,
    WholeFile,
    WorkerDiedError,
)
from fdjax.lean.facts.judge import judge
from fdjax.lean.facts.safety import misfit, scan, scan_file
from fdjax.lean.facts.source import File, body_of
from fdjax.lean.facts.verdict import Diagnostic, Status, Verdict
from fdjax.ranges import Whole, require
from fdjax.records import Problem

__all__ = ["Elaboration", "StatementReport", "Statistics", "Verifier"]

WORKERS = Whole(1, 4096)
"""Workers of a pool; each has a thread of its own."""
FLUSH_S = 1.0
"""Verdicts are written to the cache file at least this often."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Counts since the verifier was made."""

    checked: int = 0
    """Proofs that Lean elaborated."""
    cached: int = 0
    """Items answered from the cache."""
    crashed: int = 0
    """Proofs without a result because the checker failed twice."""
    broken_statements: int = 0
    """Items whose own header or statement cannot be used."""
    restarts: int = 0
    """Workers that died during a request and were replaced."""
    seconds: float = 0.0
    """Wall time spent in `verify`."""


@dataclass(frozen=True, kw_only=True)
class StatementReport:
    """Whether a problem's own header and statement can be used."""

    ok: bool
    """Whether proofs of it can be checked."""
    reason: str = ""
    """What is wrong, with Lean's words; empty when `ok`."""
    diagnostics: tuple[Diagnostic, ...] = ()
    """Lean's messages about the statement or its header."""


@dataclass(frozen=True, kw_only=True)
class Elaboration:
    """What Lean says about a file; not a verdict about any theorem."""

    diagnostics: tuple[Diagnostic, ...] = ()
    """Messages in source order, capped by `Limits.output_bytes`."""
    complete: bool = True
    """Whether every error and warning is among the diagnostics."""
    ended: Literal["done", "unsafe", "timeout", "memory", "crashed"] = "done"
    """Whether all of it was elaborated, and what was in the way."""
    reason: str = ""
    """One sentence for people; empty when `done`."""
    seconds: float = 0.0
    """Wall time of the elaboration."""


class Verifier:
    """Checks proofs of problems with a pool of Lean processes.

    A context manager; `close` ends the processes. `verify` may be called from several
    threads; the example of `fdjax.lean` is the shortest.
    """

    def __init__(
        self,
        backend_factory: Callable[[], Backend] = WasmBackend,
        *,
        workers: int = 2,
        limits: Limits = DEFAULT_LIMITS,
        cache_path: Path | None = None,
    ) -> None:
        """Prepare; processes start with the first request or `start`.

        Args:
          backend_factory: makes one backend per worker.
          workers: number of Lean processes; each takes one core and 0.5 to 0.7 GB.
          limits: what one proof may use.
          cache_path: file for verdicts; None keeps them in memory only.

        Raises:
          ConfigError: `workers` is out of range.
        """
        require(
            "Verifier.workers",
            workers,
            WORKERS,
            remedy="one per free core is a good number",
        )
        self._limits = limits
        self._pool = WorkerPool(backend_factory, workers)
        try:
            self._setting = cache_setting(self._pool.identity, limits)
            self._cache = VerdictCache(cache_path)
        except BaseException:
            self._pool.close()
            raise
        self._lock = threading.Lock()
        self._checked = 0
        self._cached = 0
        self._crashed = 0
        self._broken = 0
        self._seconds = 0.0

    @property
    def identity(self) -> str:
        """Toolchain and host version behind the verdicts, for tables and logs."""
        return self._pool.identity

    @property
    def limits(self) -> Limits:
        """What one proof may use."""
        return self._limits

    def verify(
        self,
        items: Sequence[tuple[Problem, Submission]],
        progress: Callable[[int], None] | None = None,
        *,
        decided: Callable[[int, Verdict], None] | None = None,
        broken_statements: Literal["raise", "reject"] = "raise",
        cancellation: Cancellation | None = None,
    ) -> list[Verdict]:
        """One verdict for each (problem, submission), in the same order.

        Equal items are elaborated once.

        Args:
          items: problems with tactic text (it follows `:= by` on a new line), or with
            a `WholeFile`.
          progress: called in this thread with the number of finished items.
          decided: called in this thread with each item's index and verdict as soon as
            there is one, in no particular order.
          broken_statements: what to do about problems whose own header or statement
            cannot be used, after everything else has been checked and cached: raise,
            or give verdicts with the reason that are marked `broken_statement`.
          cancellation: lets another thread give the call up; verdicts so far are
            cached.

        Raises:
          concurrent.futures.CancelledError: it was given up.
          BackendError, InstallError: Lean cannot be started.
          DataError: a problem's own header or statement cannot be used (see
            `check_statements`).
        """
        begin = time.monotonic()
        try:
            verdicts, broken = self._verify(
                items, progress or _no_progress, decided or _not_told, cancellation
            )
        finally:
            self._cache.flush()
            with self._lock:
                self._seconds += time.monotonic() - begin
        if broken and broken_statements == "raise":
            name, reason = next(iter(broken.items()))
            raise DataError(
                "Verifier.verify: expected statements that elaborate and end before "
                f"`:=`, got {len(broken)} that do not, among them {name}: {reason}; "
                "find them with check_statements before verifying proofs."
            )
        return verdicts

    async def averify(
        self,
        items: Sequence[tuple[Problem, Submission]],
        progress: Callable[[int], None] | None = None,
        *,
        decided: Callable[[int, Verdict], None] | None = None,
        broken_statements: Literal["raise", "reject"] = "raise",
    ) -> list[Verdict]:
        """`verify` in a thread of its own, where the callbacks are called, too.

        When the task is cancelled, items that no worker has begun are dropped.
        """
        cancellation = Cancellation()
        # Not the loop's own executor: its threads are as few as the cores.
        executor = ThreadPoolExecutor(1, thread_name_prefix="averify")
        try:
            return await asyncio.get_running_loop().run_in_executor(
                executor,
                lambda: self.verify(
                    items,
                    progress,
                    decided=decided,
                    broken_statements=broken_statements,
                    cancellation=cancellation,
                ),
            )
        finally:
            cancellation.cancel()
            executor.shutdown(wait=False)

    def elaborate(
        self,
        sources: Sequence[str],
        progress: Callable[[int], None] | None = None,
        *,
        limits: Limits | None = None,
        cancellation: Cancellation | None = None,
    ) -> list[Elaboration]:
        """What Lean says about whole files that need prove nothing, in order.

        Args:
          sources: the files, imports included.
          progress: called in this thread with the number of finished files.
          limits: what each file may use; the verifier's limits by default.
          cancellation: lets another thread give the call up.

        Raises:
          concurrent.futures.CancelledError: it was given up.
          BackendError, InstallError: Lean cannot be started.
        """
        found = {
            index: Elaboration(ended="unsafe", reason=reason)
            for index, source in enumerate(sources)
            if (reason := scan_file(source))
        }
        progress = progress or _no_progress
        if found:
            progress(len(found))
        left = [index for index in range(len(sources)) if index not in found]
        requests = [
            RunRequest(source=sources[index], limits=limits or self._limits)
            for index in left
        ]

        def receive(position: int, answer: RawReport | WorkerDiedError) -> None:
            found[left[position]] = _elaboration(requests[position], answer)
            progress(len(found))

        self._pool.run(requests, receive, cancellation)
        return [found[index] for index in range(len(sources))]

    def observe(
        self,
        request: CheckRequest | RunRequest,
        cancellation: Cancellation | None = None,
    ) -> RawReport:
        """The facts about one request, for a caller that judges them.

        Nothing is scanned, decided or cached, and the request's own limits hold.

        Args:
          request: what to elaborate.
          cancellation: lets another thread give the call up.

        Raises:
          concurrent.futures.CancelledError: it was given up.
          WorkerDiedError: the checker failed twice.
          BackendError, InstallError: Lean cannot be started.
        """
        [answer] = self._pool.run([request], cancellation=cancellation)
        if isinstance(answer, WorkerDiedError):
            raise answer
        return answer

    def check_statements(self, problems: Sequence[Problem]) -> list[StatementReport]:
        """Whether each problem's statement is one, in the same order.

        It must be a single command that elaborates to a theorem of the problem's name
        when `:=` and a proof follow, and hold nothing of a proof itself.

        Raises:
          BackendError, InstallError: Lean cannot be started or died twice.
        """
        requests = [self._request(problem, None) for problem in problems]
        reports = []
        for request, answer in zip(requests, self._pool.run(requests), strict=True):
            if isinstance(answer, WorkerDiedError):
                raise BackendError(
                    f"{request.name}: expected Lean to elaborate the statement, but it "
                    f"died twice: {answer}"
                )
            reports.append(_statement_report(request, answer))
        return reports

    @property
    def statistics(self) -> Statistics:
        """A snapshot of the counts."""
        return Statistics(
            checked=self._checked,
            cached=self._cached,
            crashed=self._crashed,
            broken_statements=self._broken,
            restarts=self._pool.deaths,
            seconds=self._seconds,
        )

    def start(self) -> None:
        """Start all workers now instead of with the first request (2 to 5 s).

        Raises:
          BackendError, InstallError: Lean cannot be started.
        """
        self._pool.start()

    def close(self) -> None:
        """End all processes and write the cache."""
        self._pool.close()
        self._cache.close()

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _verify(
        self,
        items: Sequence[tuple[Problem, Submission]],
        progress: Callable[[int], None],
        decided: Callable[[int, Verdict], None],
        cancellation: Cancellation | None,
    ) -> tuple[list[Verdict], dict[str, str]]:
        """All verdicts, and why statements are broken by the problem's name."""
        requests = [self._request(problem, proof) for problem, proof in items]
        keys = [verdict_key(request, self._setting) for request in requests]
        places: dict[bytes, list[int]] = {}
        for index, key in enumerate(keys):
            places.setdefault(key, []).append(index)
        first = {key: requests[indices[0]] for key, indices in places.items()}
        verdicts = self._cache.get_many(list(first))
        finished = 0
        for key, verdict in verdicts.items():
            finished += len(places[key])
            for index in places[key]:
                decided(index, verdict)
        with self._lock:
            self._cached += finished
        if finished:
            progress(finished)

        def decide(key: bytes, verdict: Verdict, *, keep: bool = True) -> None:
            nonlocal finished
            verdicts[key] = verdict
            if keep:
                self._cache.put(key, verdict)
            finished += len(places[key])
            for index in places[key]:
                decided(index, verdict)
            progress(finished)

        to_check = []
        for key, request in first.items():
            if key in verdicts:
                continue
            if refused := _scan(request):
                decide(key, Verdict(status=Status.UNSAFE, reason=refused))
            else:
                to_check.append(key)

        broken: dict[str, str] = {}
        last_flush = time.monotonic()

        def receive(index: int, answer: RawReport | WorkerDiedError) -> None:
            nonlocal last_flush
            key = to_check[index]
            verdict = self._verdict(first[key], answer)
            if verdict.broken_statement:
                broken[first[key].name] = verdict.reason
                with self._lock:
                    self._broken += len(places[key])
            decide(key, verdict, keep=not verdict.broken_statement)
            if time.monotonic() - last_flush > FLUSH_S:
                self._cache.flush()
                last_flush = time.monotonic()

        self._pool.run([first[key] for key in to_check], receive, cancellation)
        return [verdicts[key] for key in keys], broken

    def _verdict(
        self, request: CheckRequest, answer: RawReport | WorkerDiedError
    ) -> Verdict:
        crashed = isinstance(answer, WorkerDiedError)
        with self._lock:
            self._checked += 1
            self._crashed += crashed
        if isinstance(answer, WorkerDiedError):
            return Verdict(
                status=Status.CRASHED, reason=f"the checker failed twice: {answer}"
            )
        verdict = judge(answer, request)
        if answer.has_errors and (reason := misfit(request.proof or "")):
            return replace(verdict, reason=f"{verdict.reason}: {reason}")
        return verdict

    def _request(self, problem: Problem, proof: Submission | None) -> CheckRequest:
        return CheckRequest(
            name=problem.name,
            header=problem.header,
            statement=problem.statement,
            proof=proof,
            limits=self._limits,
        )


def _statement_report(request: CheckRequest, answer: RawReport) -> StatementReport:
    if not answer.statement_error:
        return StatementReport(ok=True)
    verdict = judge(answer, request)
    return StatementReport(
        ok=False, reason=verdict.reason, diagnostics=verdict.diagnostics
    )


def _scan(request: CheckRequest) -> str:
    if isinstance(request.proof, WholeFile):
        return scan_file(body_of(request.proof, request.header), request.statement)
    return scan(request.proof or "")


def _elaboration(
    request: RunRequest, answer: RawReport | WorkerDiedError
) -> Elaboration:
    if isinstance(answer, WorkerDiedError):
        return Elaboration(ended="crashed", reason=f"Lean failed twice: {answer}")
    source = File(text=request.source)
    ended, reason = "done", ""
    if answer.refused:
        ended, reason = "unsafe", f"`{answer.refused}` is not allowed"
    elif answer.timed_out:
        ended, reason = "timeout", "the file used up its time"
    elif answer.out_of_memory:
        ended, reason = "memory", "the file used up its memory"
    shows_errors = any(message.severity == "error" for message in answer.messages)
    return Elaboration(
        diagnostics=tuple(map(source.diagnostic, answer.messages)),
        complete=not answer.left_out and shows_errors == answer.has_errors,
        ended=ended,
        reason=reason,
        seconds=answer.seconds,
    )


def _no_progress(finished: int) -> None:
    """Report to nobody."""


def _not_told(index: int, verdict: Verdict) -> None:
    """Report to nobody."""
