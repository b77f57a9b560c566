"""Threads that each own one Lean process and share what is to be done."""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field

from fdjax.errors import BackendError
from fdjax.lean.engine.jobs import Jobs
from fdjax.lean.facts.backend import (
    Backend,
    CheckRequest,
    RawReport,
    RunRequest,
    WorkerDiedError,
)

__all__ = ["Cancellation", "WorkerPool"]

_log = logging.getLogger(__name__)

TRIES = 2
"""Deaths of a worker during one request after which the request is given up."""
INNOCENT_TRIES = 8
"""The same for deaths that the request cannot have caused."""

Request = CheckRequest | RunRequest
Answer = RawReport | WorkerDiedError


@dataclass
class _Batch:
    """One call of `run`: its requests and the answers as they come."""

    requests: Sequence[Request]
    answers: "queue.SimpleQueue[tuple[int, Answer | Exception]]" = field(
        default_factory=queue.SimpleQueue
    )
    cancelled: bool = False

    def cancel(self) -> None:
        """Have `run` raise and the workers skip what they have not begun."""
        self.cancelled = True
        self.answers.put((-1, CancelledError("the call was cancelled")))


class Cancellation:
    """Gives up a call that runs in another thread; what has begun is finished."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._batch: _Batch | None = None

    def cancel(self) -> None:
        """Make the call raise `concurrent.futures.CancelledError`, now or when made."""
        with self._lock:
            self._cancelled = True
            if self._batch is not None:
                self._batch.cancel()

    def watch(self, batch: _Batch) -> None:
        """What to give up from now on."""
        with self._lock:
            self._batch = batch
            if self._cancelled:
                batch.cancel()


@dataclass
class _Worker:
    """A backend, used by whoever holds the lock."""

    backend: Backend
    lock: threading.Lock = field(default_factory=threading.Lock)
    begun: bool = False
    """Whether it was started or used before."""


class WorkerPool:
    """A fixed number of workers; processes start when first needed."""

    def __init__(self, factory: Callable[[], Backend], workers: int) -> None:
        """Make the threads.

        Args:
          factory: makes one backend per worker, not yet started.
          workers: number of Lean processes.
        """
        self._jobs: Jobs[tuple[_Batch, int]] = Jobs()
        self._workers = [_Worker(factory()) for _ in range(workers)]
        self._closing = False
        self._lock = threading.Lock()
        self.deaths = 0
        """How often a worker died during a request, since the pool was made."""
        self._threads = [
            threading.Thread(
                target=self._work,
                args=(number, worker),
                name=f"lean-{number}",
                daemon=True,
            )
            for number, worker in enumerate(self._workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def identity(self) -> str:
        """The backends' identity."""
        return self._workers[0].backend.identity

    def start(self) -> None:
        """Start all processes at once that were not started or used before.

        Raises:
          BackendError, InstallError: a worker cannot be started.
        """

        def start(worker: _Worker) -> None:
            with worker.lock:
                if not worker.begun:
                    worker.begun = True
                    worker.backend.start()

        with ThreadPoolExecutor(len(self._workers)) as executor:
            for started in [executor.submit(start, each) for each in self._workers]:
                started.result()

    def run(
        self,
        requests: Sequence[Request],
        receive: Callable[[int, Answer], None] | None = None,
        cancellation: Cancellation | None = None,
    ) -> list[Answer]:
        """Check all requests; answers in the order of the requests.

        A request during which a worker dies is tried once more on a fresh worker,
        several times where the request cannot have caused it; if that dies too, the
        answer is the `WorkerDiedError`, or a report of exhausted memory where Lean
        said so each time.

        Args:
          requests: what to check.
          receive: called in this thread with (index, answer) as answers arrive.
          cancellation: lets another thread give the call up.

        Raises:
          CancelledError: it was given up.
          BackendError, InstallError: a worker cannot be started.
        """
        batch = _Batch(requests)
        if cancellation is not None:
            cancellation.watch(batch)
        with self._lock:
            if self._closing:
                raise BackendError(
                    "WorkerPool.run: expected an open pool, got a closed one; make a "
                    "new one."
                )
            for index, request in enumerate(requests):
                self._jobs.put((batch, index), _likeness(request))
        answers: dict[int, Answer] = {}
        try:
            while len(answers) < len(requests):
                index, answer = batch.answers.get()
                if isinstance(answer, Exception) and not isinstance(
                    answer, WorkerDiedError
                ):
                    raise answer
                answers[index] = answer
                if receive is not None:
                    receive(index, answer)
        finally:
            # After Ctrl-C or a failure the workers skip what is left of this batch.
            batch.cancelled = True
        return [answers[index] for index in range(len(requests))]

    def close(self) -> None:
        """End all workers and their processes, also in the middle of a request."""
        with self._lock:
            self._closing = True
            self._jobs.close()
        for thread, worker in zip(self._threads, self._workers, strict=True):
            while thread.is_alive():
                # A worker may be between two processes: ask until it has ended.
                worker.backend.interrupt()
                thread.join(timeout=0.05)

    def _work(self, number: int, worker: _Worker) -> None:
        try:
            while (job := self._jobs.take(number)) is not None:
                batch, index = job
                if batch.cancelled:
                    continue
                try:
                    answer = self._check(worker, batch.requests[index])
                except Exception as error:  # noqa: BLE001 - raised again by `run`
                    answer = error
                batch.answers.put((index, answer))
        finally:
            with worker.lock:
                worker.backend.close()

    def _check(self, worker: _Worker, request: Request) -> Answer:
        guilty, innocent, exhausted = 0, 0, 0
        while True:
            if self._closing:
                return WorkerDiedError("the pool was closed", innocent=True)
            try:
                with worker.lock:
                    worker.begun = True
                    return worker.backend.check(request)
            except WorkerDiedError as error:
                self._count_death(error)
                innocent += error.innocent
                guilty += not error.innocent
                exhausted += error.exhausted
                if exhausted == TRIES:
                    return RawReport(out_of_memory=True)
                if guilty == TRIES or innocent == INNOCENT_TRIES:
                    return error

    def _count_death(self, error: WorkerDiedError) -> None:
        with self._lock:
            self.deaths += 1
        if not self._closing:
            _log.warning("a Lean worker died and is replaced: %s", error)


def _likeness(request: Request) -> tuple[str, str, str] | None:
    """What a worker elaborates once for several attempts."""
    if isinstance(request, RunRequest):
        return None
    return request.header, request.statement, request.name
