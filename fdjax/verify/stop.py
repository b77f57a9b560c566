"""Ctrl-C and SIGTERM as an exception that never comes while a row is being written."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from fdjax.signals import first_stop_signal

__all__ = ["StopSignal", "StoppedError", "stop_on_signal"]


class StoppedError(BaseException):
    """The process was asked to end; no `except Exception` stands in its way."""

    def __init__(self, number: int) -> None:
        """Remember the signal's number."""
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class StopSignal:
    """Whether somebody asked the process to end, and whether it may now."""

    def __init__(self) -> None:
        self._requested = 0
        self._held = False

    def request(self, number: int) -> None:
        """End now, or when the work that must not be cut has been done.

        Raises:
          StoppedError: nothing is in the way.
        """
        self._requested = number
        if not self._held:
            raise StoppedError(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Work that is done to its end before `StoppedError` comes."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._requested:
            raise StoppedError(self._requested)


@contextmanager
def stop_on_signal() -> Iterator[StopSignal]:
    """The first SIGINT or SIGTERM raises `StoppedError`; a second one acts at once.

    Only the main thread may use it.
    """
    stop = StopSignal()
    with first_stop_signal(stop.request):
        yield stop
