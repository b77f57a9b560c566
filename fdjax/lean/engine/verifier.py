"""Check proofs: cache, safety scan, worker pool, judgement."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fdjax.errors import DataError
from fdjax.lean.embedded.wasm import WasmBackend
from fdjax.lean.engine import outcomes
from fdjax.lean.engine.cache import VerdictCache, cache_setting, verdict_key
from fdjax.lean.engine.call import Call
from fdjax.lean.engine.outcomes import Elaboration, StatementReport
from fdjax.lean.engine.pool import Answer, Cancellation, WorkerPool
from fdjax.lean.facts.backend import (
    DEFAULT_LIMITS,
    Backend,
    CheckRequest,
    Limits,
    RawReport,
    RunRequest,
    Submission,
    WorkerDiedError,
)
from fdjax.lean.facts.scan import refusal
from fdjax.lean.facts.verdict import Status, Verdict
from fdjax.ranges import Whole, require
from fdjax.records import Problem

__all__ = ["Statistics", "Verifier"]

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
        self._backend_factory = backend_factory
        self._pool = WorkerPool(backend_factory, workers)
        try:
            self._setting = cache_setting(self._pool.identity, limits)
            self._cache = VerdictCache(cache_path)
        except BaseException:
            self._pool.close()
            raise
        self._lock = threading.Lock()
        self._counts = Statistics()

    @property
    def identity(self) -> str:
        """Toolchain and host version behind the verdicts, for tables and logs."""
        return self._pool.identity

    @property
    def limits(self) -> Limits:
        """What one proof may use."""
        return self._limits

    @property
    def settings(self) -> dict[str, Any]:
        """What decides verdicts: who makes the backends, and the limits."""
        return {"backend": self._backend_factory, "limits": self._limits}

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
        requests = [self._request(problem, proof) for problem, proof in items]
        call = Call(
            requests=requests,
            keys=[verdict_key(request, self._setting) for request in requests],
            progress=progress or _no_progress,
            decided=decided or _not_told,
        )
        try:
            self._decide(call, cancellation)
        finally:
            self._cache.flush()
            self._count(seconds=time.monotonic() - begin)
        if broken_statements == "raise":
            _require_statements(requests, call.verdicts)
        return call.verdicts

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
        requests = [
            RunRequest(source=source, limits=limits or self._limits)
            for source in sources
        ]
        found = {
            index: Elaboration(ended="unsafe", reason=reason)
            for index, request in enumerate(requests)
            if (reason := refusal(request))
        }
        progress = progress or _no_progress
        if found:
            progress(len(found))
        left = [index for index in range(len(requests)) if index not in found]

        def receive(position: int, answer: Answer) -> None:
            index = left[position]
            found[index] = outcomes.elaboration(requests[index], answer)
            progress(len(found))

        self._pool.run([requests[index] for index in left], receive, cancellation)
        return [found[index] for index in range(len(requests))]

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
        answers = self._pool.run(requests)
        return list(map(outcomes.statement_report, requests, answers))

    @property
    def statistics(self) -> Statistics:
        """A snapshot of the counts."""
        return replace(self._counts, restarts=self._pool.deaths)

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

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _decide(self, call: Call, cancellation: Cancellation | None) -> None:
        """From the cache, by the scan, or by Lean, whichever decides first."""
        known = self._cache.get_many(list(call.open))
        self._count(cached=call.decide(known))
        to_check = []
        for key, request in call.open.items():
            if refused := refusal(request):
                verdict = Verdict(status=Status.UNSAFE, reason=refused)
                self._cache.put(key, verdict)
                call.decide({key: verdict})
            else:
                to_check.append((key, request))

        def receive(index: int, answer: Answer) -> None:
            key, request = to_check[index]
            verdict = outcomes.verdict(request, answer)
            self._cache.put(key, verdict)
            items = call.decide({key: verdict})
            self._count(
                checked=1,
                crashed=verdict.status is Status.CRASHED,
                broken_statements=items * verdict.broken_statement,
            )
            self._cache.flush(every_s=FLUSH_S)

        self._pool.run([request for _, request in to_check], receive, cancellation)

    def _count(self, **more: float) -> None:
        with self._lock:
            sums = {name: getattr(self._counts, name) + more[name] for name in more}
            self._counts = replace(self._counts, **sums)

    def _request(self, problem: Problem, proof: Submission | None) -> CheckRequest:
        return CheckRequest(
            name=problem.name,
            header=problem.header,
            statement=problem.statement,
            proof=proof,
            limits=self._limits,
        )


def _require_statements(
    requests: Sequence[CheckRequest], verdicts: Sequence[Verdict]
) -> None:
    broken = {
        request.name: verdict.reason
        for request, verdict in zip(requests, verdicts, strict=True)
        if verdict.broken_statement
    }
    if broken:
        name, reason = next(iter(broken.items()))
        raise DataError(
            "Verifier.verify: expected statements that elaborate and end before `:=`, "
            f"got {len(broken)} that do not, among them {name}: {reason}; find them "
            "with check_statements before verifying proofs."
        )


def _no_progress(finished: int) -> None:
    """Report to nobody."""


def _not_told(index: int, verdict: Verdict) -> None:
    """Report to nobody."""
