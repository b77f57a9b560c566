"""Blocking verification in threads, within the server's limits."""

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import HTTPException, Request, Response

from fdjax.errors import BackendError, InstallError
from fdjax.lean import Cancellation, Verifier
from fdjax.serve.config import ServeConfig
from fdjax.serve.health import Health
from fdjax.serve.metrics import Metrics

__all__ = ["Job", "Work"]

THREADS = 256
"""Requests that are worked on at once; each waits in a thread for its answers."""


class Job:
    """One request's items on their way."""

    def __init__(self, items: int, count: Callable[[int], None]) -> None:
        """Begin with all items left.

        Args:
          items: how many snippets or proofs.
          count: told how many more are pending, a negative number of those finished.
        """
        self.cancellation = Cancellation()
        """Gives the job up when its client leaves."""
        self._items = self._left = items
        self._count = count

    def progress(self, finished: int) -> None:
        """Take note of the number of finished items."""
        self._count(self._items - finished - self._left)
        self._left = self._items - finished

    def end(self) -> None:
        """Take note that nothing is left, however it ended."""
        self.progress(self._items)


class Work:
    """The verifier, as routes use it."""

    def __init__(
        self, verifier: Verifier, config: ServeConfig, health: Health, metrics: Metrics
    ) -> None:
        """Prepare; threads start when needed."""
        self.verifier = verifier
        """What decides."""
        self.metrics = metrics
        """Where items are counted."""
        self._config = config
        self._health = health
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="serve")
        self._lock = threading.Lock()
        self._pending = 0

    async def answer(
        self, request: Request, items: int, task: Callable[[Job], Any]
    ) -> Response:
        """Run `task` in a thread and answer with the JSON of what it returns.

        Args:
          request: where the work comes from; when its client leaves, what has not
            begun is dropped.
          items: how many snippets or proofs it holds.
          task: blocks.

        Raises:
          HTTPException: 422 for too many items, 429 when too many are waiting, 499
            when the client has left, 500 when Lean cannot be started.
        """
        job = self._admit(items)
        running = asyncio.get_running_loop().run_in_executor(
            self._executor, self._work, job, task
        )
        running.add_done_callback(_look_at)
        leaving = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise HTTPException(499, "Client disconnected")
            return Response(running.result(), media_type="application/json")
        except (BackendError, InstallError) as error:
            raise HTTPException(500, str(error)) from error
        finally:
            job.cancellation.cancel()
            leaving.cancel()

    def close(self) -> None:
        """Wait for the threads; the verifier must be closed by then."""
        self._executor.shutdown()

    def _admit(self, items: int) -> Job:
        config = self._config
        if items > config.max_items:
            raise HTTPException(
                422,
                f"expected at most {config.max_items} items, got {items}; send them in "
                "several requests",
            )
        with self._lock:
            if self._pending + items > config.max_pending:
                pause = {"Retry-After": str(config.retry_after_s)}
                raise HTTPException(429, "No available REPLs", pause)
            self._pending += items
        self._count(0)
        return Job(items, self._count)

    def _work(self, job: Job, task: Callable[[Job], Any]) -> bytes:
        try:
            values = task(job)
            self._health.succeeded()
            return _json(values)
        except (BackendError, InstallError) as error:
            self._health.failed(error)
            raise
        finally:
            job.end()

    def _count(self, more: int) -> None:
        with self._lock:
            self._pending += more
            self.metrics.pending.set(self._pending)


async def _disconnected(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(values: Any) -> bytes:
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    # A client's own lone surrogate goes back as the escape that JSON has for it.
    return text.encode("utf-8", "backslashreplace")


def _look_at(running: "asyncio.Future[bytes]") -> None:
    """Mark an exception as seen, also when the request has ended before."""
    if not running.cancelled():
        running.exception()
