"""What a tracker is, and trackers that never end a run."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

__all__ = ["Tracker", "Tracking"]

_log = logging.getLogger(__name__)


@runtime_checkable
class Tracker(Protocol):
    """Receives the rows of metrics as they are written."""

    def write(
        self, arm: str, step: int, values: Mapping[str, float], wall_time_s: float
    ) -> None:
        """One row.

        Args:
          arm: the phase.
          step: its iterations.
          values: finite numbers by the metric's name.
          wall_time_s: Unix time of the row.
        """
        ...

    def truncate_after(self, arm: str, step: int) -> None:
        """The phase resumes at a step: later rows of it will be written again."""
        ...

    def close(self) -> None:
        """Sends what is left."""
        ...


class Tracking:
    """Several trackers as one (`Tracker`); one that fails is left out from then on.

    Metrics are in metrics.jsonl in any case: a tracker's error is said once, and the
    run goes on.
    """

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        """Of trackers that are ready."""
        self._trackers = list(trackers)

    def write(
        self, arm: str, step: int, values: Mapping[str, float], wall_time_s: float
    ) -> None:
        """One row for all of them."""
        self._each(lambda tracker: tracker.write(arm, step, values, wall_time_s))

    def truncate_after(self, arm: str, step: int) -> None:
        """Says to all of them where a phase resumes."""
        self._each(lambda tracker: tracker.truncate_after(arm, step))

    def close(self) -> None:
        """Closes all of them."""
        self._each(lambda tracker: tracker.close())
        self._trackers.clear()

    def _each(self, call: Callable[[Tracker], object]) -> None:
        for tracker in list(self._trackers):
            try:
                call(tracker)
            except Exception as error:  # noqa: BLE001 - whatever a library raises
                self._trackers.remove(tracker)
                _log.warning(
                    "%s failed and gets no more metrics; they are in metrics.jsonl: %s",
                    *(type(tracker).__name__, error or repr(error)),
                )
