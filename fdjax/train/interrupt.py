"""Stopping before a step: a signal asks, the loop saves and then obeys."""

import _thread
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from typing import Any

from fdjax.errors import FdjaxError
from fdjax.sharding import gather
from fdjax.signals import first_stop_signal

__all__ = ["StopRequest", "StoppedError", "stop_on_signal"]


class StoppedError(FdjaxError, RuntimeError):
    """The run was asked to stop; its state is saved."""

    def __init__(self, message: str, signal: int | None = None) -> None:
        super().__init__(message)
        self.signal = signal
        """Number of the signal that asked, if one did."""


class StopRequest:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False
        self.signal: int | None = None
        """Number of the signal that asked, if one did."""
        self._watched: list[Future[Any]] = []

    def agreed(self) -> bool:
        """Whether a process was asked, for all of them alike; a collective.

        A host that goes away tells its own process alone. Who is asked while facts are
        gathered has told the others that it was not: it says so the next time.
        """
        told = f"{int(self.requested)} {self.signal or 0}".encode()
        asked = [fact.split() for fact in gather(told)]
        signals = [int(number) for requested, number in asked if requested == b"1"]
        if signals:
            self.requested, self.signal = True, max(signals) or None
        return bool(signals)

    def ask(self, signal: int | None = None) -> None:
        """Asks; what is watched is cancelled soon. A signal's handler may call it."""
        self.requested, self.signal = True, signal
        # The handler's thread may hold a lock that cancelling takes, or one of
        # `threading.Thread`.
        _thread.start_new_thread(self._cancel, ())

    def _cancel(self) -> None:
        for work in list(self._watched):
            work.cancel()

    @contextmanager
    def watch(self, work: Future[Any]) -> Iterator[None]:
        """Cancels the work that the block waits for when somebody asks.

        Raises:
          StoppedError: it was; on several processes, on all of them.
        """
        self._watched.append(work)
        try:
            if self.requested:
                work.cancel()
            yield
        except CancelledError:
            if not self.agreed():
                raise
            raise StoppedError("Stopped on request.", self.signal) from None
        finally:
            self._watched.remove(work)

    def check(self) -> None:
        """Raises `StoppedError` at a point where nothing is half done."""
        if self.agreed():
            raise StoppedError("Stopped on request between two steps.", self.signal)


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turns the first SIGINT or SIGTERM into a request; a second one acts at once."""
    request = StopRequest()
    with first_stop_signal(request.ask):
        yield request
