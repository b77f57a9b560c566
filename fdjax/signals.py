"""The first Ctrl-C or SIGTERM is the program's to answer, a second one the system's."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["first_stop_signal"]


@contextmanager
def first_stop_signal(answer: Callable[[int], None]) -> Iterator[None]:
    """Has the first SIGINT or SIGTERM call `answer`; a second one acts at once.

    Only the main thread may use it.

    Args:
      answer: takes the signal's number; what it raises is raised in the main thread.
    """
    previous = {}

    def handle(number: int, frame: FrameType | None) -> None:
        restore()
        answer(number)

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
