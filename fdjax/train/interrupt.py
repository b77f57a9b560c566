"""Stopping between steps: Ctrl-C asks, the loop saves and then obeys."""

from collections.abc import Iterator
from contextlib import contextmanager

from fdjax.errors import FdjaxError
from fdjax.signals import first_stop_signal

__all__ = ["StopRequest", "StoppedError", "stop_on_signal"]


class StoppedError(FdjaxError, RuntimeError):
    """The run was asked to stop; its state is saved."""


class StopRequest:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raises `StoppedError` at a point where nothing is half done."""
        if self.requested:
            raise StoppedError("Stopped on request between two steps.")


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turns the first SIGINT or SIGTERM into a request; a second one acts at once."""
    request = StopRequest()

    def ask(number: int) -> None:
        request.requested = True

    with first_stop_signal(ask):
        yield request
