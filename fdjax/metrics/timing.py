"""Wall time of the stages of a step."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["StageTimer"]


class StageTimer:
    """Collects the wall time of named stages as `time/<stage>_s` metrics.

    Stages may nest, repeat and run in several threads: each entry adds its own time to
    its stage. Time on a device counts only if the stage waits for its results.

    >>> timer = StageTimer()
    >>> with timer.stage("sample"):
    ...     pass
    >>> list(timer.take())
    ['time/sample_s']
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start with no stages.

        Args:
          clock: seconds from any fixed origin; never runs backwards.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent in the `with` block, errors included, to a stage.

        Args:
          name: the stage, as in `time/<name>_s`.
        """
        started = self._clock()
        try:
            yield
        finally:
            spent = self._clock() - started
            with self._lock:
                self._seconds[name] = self._seconds.get(name, 0.0) + spent

    def take(self) -> dict[str, float]:
        """Metrics of the stages since the last call, in seconds; starts afresh."""
        with self._lock:
            taken, self._seconds = self._seconds, {}
        return {f"time/{name}_s": seconds for name, seconds in taken.items()}
