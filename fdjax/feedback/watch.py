"""The place where missing feedback ends a run: past a share, and not before."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Literal

from fdjax.errors import FeedbackError
from fdjax.feedback.failure import Kind
from fdjax.feedback.writer import Attempt, Feedback, Writer
from fdjax.feedback.writing import aclose_all, is_late, write_safely
from fdjax.ranges import Among, Number, Whole, require

__all__ = ["Watched"]

_log = logging.getLogger(__name__)


class Watched:
    """A writer whose failures are counted (`Writer`); too many of them end the run."""

    def __init__(
        self,
        writer: Writer,
        *,
        max_missing_share: float = 0.5,
        window: int = 256,
        at_budget: Literal["go on", "stop"] = "go on",
    ) -> None:
        """Watch a writer.

        Args:
          writer: whose feedback is counted.
          max_missing_share: of the newest attempts, how many may be without feedback;
            1 is never too many.
          window: how many attempts are looked at; before there are as many, no share is
            too large.
          at_budget: what happens when a budget is used up. The attempts that are left
            have no feedback and are not counted as missing, or the run ends.

        Raises:
          ConfigError: a setting is out of range.
        """
        require("max_missing_share", max_missing_share, Number(least=0, most=1))
        require("window", window, Whole(1))
        require("at_budget", at_budget, Among("go on", "stop"))
        self._writer = writer
        self._max_missing_share = max_missing_share
        self._stops_at_budget = at_budget == "stop"
        self._newest: deque[Feedback] = deque(maxlen=window)
        self._told_budget = False

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its words: the writer that is watched."""
        return {"writer": self._writer}

    async def write(self, group: Sequence[Attempt]) -> list[Feedback]:
        """Feedback on each attempt, in order (`Writer`).

        What is cut off at the caller's deadline (`write_in_time`) counts as missing.

        Raises:
          FeedbackError: too much of it is missing, or the budget is used up and the run
            is to end then.
        """
        try:
            notes = await write_safely(self._writer, group)
        except asyncio.CancelledError:
            if is_late():
                late = Feedback.failed(Kind.DEADLINE, "it did not come in time")
                self._newest.extend([late] * len(group))
                self._require_enough()
            raise
        for note in notes:
            if note.kind is Kind.BUDGET:
                self._budget_used_up(note)
            else:
                self._newest.append(note)
        self._require_enough()
        return notes

    async def aclose(self) -> None:
        """Close the writer."""
        await aclose_all([self._writer])

    def _budget_used_up(self, note: Feedback) -> None:
        if self._stops_at_budget:
            raise FeedbackError(
                f"expected a budget for the whole run, got its end ({note.error}): "
                "raise it and resume; recorded answers are not paid for again"
            )
        if not self._told_budget:
            self._told_budget = True
            _log.warning("No more feedback is asked for: %s", note.error)

    def _require_enough(self) -> None:
        missing = [note for note in self._newest if not note.available]
        share = len(missing) / max(len(self._newest), 1)
        full = len(self._newest) == self._newest.maxlen
        if not full or share <= self._max_missing_share:
            return
        kinds = Counter(note.kind for note in missing)
        counts = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        raise FeedbackError(
            f"expected feedback on at least {1 - self._max_missing_share:.0%} of the "
            f"attempts, got none on {len(missing)} of the last {len(self._newest)} "
            f"({counts}); the newest: {missing[-1].error}. Mend its cause and resume, "
            "or raise max_missing_share"
        )
