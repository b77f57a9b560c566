"""One event loop for all that waits on others: judges, feedback writers."""

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["EventLoop"]

Result = TypeVar("Result")


class EventLoop:
    """An asyncio loop in a thread of its own, so that notebooks can use it, too.

    Clients of an API belong to the loop that they were first used on: what shares a
    writer shares its loop. It ends with the object, or when it is closed.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(
            target=_run, args=(self._loop,), name="fdjax-event-loop", daemon=True
        )
        thread.start()
        self._end = weakref.finalize(self, _end, self._loop, thread)

    def run(
        self,
        coroutine: Coroutine[Any, Any, Result],
        meanwhile: Callable[[Future[Any]], object] = lambda done: None,
    ) -> Result:
        """The coroutine's result. An error here, Ctrl-C included, cancels it.

        Args:
          coroutine: runs on the loop.
          meanwhile: is called here, in this thread, with the future of the result:
            work for devices belongs to the thread that began with it.
        """
        future = self.start(coroutine)
        try:
            meanwhile(future)
            return future.result()
        finally:
            future.cancel()

    def start(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        """The result to come; whoever cancels the future cancels the coroutine."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Ends the loop; what is under way is cancelled."""
        self._end()

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._loop.is_closed()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    under_way = asyncio.all_tasks(loop)
    for task in under_way:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*under_way, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    # The last that knew of the loop may be a task on it.
    if thread is not threading.current_thread():
        thread.join()
