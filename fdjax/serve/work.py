"""Blocking verification in threads, within the server's limits."""

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import HTTPException, Request, Response

from fdjax.errors import BackendError, InstallError
from fdjax.lean import Verifier
from fdjax.serve.config import ServeConfig
from fdjax.serve.health import Health
from fdjax.serve.metrics import Metrics

__all__ = ["Work"]

THREADS = 256
"""Requests that are worked on at once; each waits in a thread for its answers."""


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
        self, request: Request, items: int, task: Callable[[Callable[[int], None]], Any]
    ) -> Response:
        """Run `task` in a thread and answer with the JSON of what it returns.

        Args:
          request: where the work comes from; when its client leaves, what has not
            begun is dropped.
          items: how many snippets or proofs it holds.
          task: blocks; calls its argument with the number of finished items.

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
            job.abandoned = True
            leaving.cancel()

    def close(self) -> None:
        """Wait for the threads; the verifier must be closed by then."""
        self._executor.shutdown()

    def _admit(self, items: int) -> "_Job":
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
            self._count(items)
        return _Job(items)

    def _work(self, job: "_Job", task: Callable[[Callable[[int], None]], Any]) -> bytes:
        def progress(finished: int) -> None:
            with self._lock:
                self._count(job.items - finished - job.left)
                job.left = job.items - finished
            if job.abandoned:
                raise _AbandonedError

        try:
            progress(0)
            values = task(progress)
            self._health.succeeded()
            return _json(values)
        except (BackendError, InstallError) as error:
            self._health.failed(error)
            raise
        finally:
            with self._lock:
                self._count(-job.left)

    def _count(self, more: int) -> None:
        self._pending += more
        self.metrics.pending.set(self._pending)


class _Job:
    """One request's items on their way."""

    def __init__(self, items: int) -> None:
        self.items = items
        self.left = items
        self.abandoned = False


class _AbandonedError(Exception):
    """Nobody waits for the rest of a job any more."""


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
