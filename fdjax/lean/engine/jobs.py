"""What waits for a worker: attempts at one theorem go to the worker that knows it."""

import threading
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

__all__ = ["Jobs"]

T = TypeVar("T")

IN_A_ROW = 16
"""Jobs that a worker takes because they are like its last one, while others wait."""
LOOK_AHEAD = 256
"""Waiting jobs among which one is looked for that is like nobody's last one."""


@dataclass(eq=False)
class _Job(Generic[T]):
    value: T | None
    """None once it is taken."""
    likeness: Hashable


@dataclass
class _Hand:
    """What a worker took last."""

    likeness: Hashable = None
    in_a_row: int = 0


@dataclass
class Jobs(Generic[T]):
    """A queue for several threads, in order but for likeness.

    Jobs of equal likeness share work that a worker does once. A worker is given the
    oldest job like its last one; where there is none, the oldest one that is like no
    other worker's; and the oldest of all where it is the only one left or has waited
    for long.
    """

    _changed: threading.Condition = field(default_factory=threading.Condition)
    _waiting: "deque[_Job[T]]" = field(default_factory=deque)
    _alike: "dict[Hashable, deque[_Job[T]]]" = field(default_factory=dict)
    _hands: dict[int, _Hand] = field(default_factory=dict)
    _closed: bool = False

    def put(self, value: T, likeness: Hashable = None) -> None:
        """Add a job at the end.

        Args:
          value: what `take` returns.
          likeness: equal for jobs that share work; None for one that shares none.
        """
        job = _Job(value, likeness)
        with self._changed:
            self._waiting.append(job)
            if likeness is not None:
                self._alike.setdefault(likeness, deque()).append(job)
            self._changed.notify()

    def take(self, worker: int) -> T | None:
        """The next job for a worker; waits for one, None when there will be none.

        Args:
          worker: its number, to know it again.
        """
        with self._changed:
            hand = self._hands.setdefault(worker, _Hand())
            while (job := self._next(hand)) is None:
                # Who waits holds nothing that others should leave to it.
                hand.likeness = None
                if self._closed:
                    return None
                self._changed.wait()
            hand.in_a_row = hand.in_a_row + 1 if job.likeness == hand.likeness else 1
            hand.likeness = job.likeness
            if job.likeness is not None:
                # Whichever way it was found, it is the oldest of its likeness.
                self._alike[job.likeness].popleft()
                if not self._alike[job.likeness]:
                    del self._alike[job.likeness]
            value, job.value = job.value, None
            return value

    def close(self) -> None:
        """Let `take` return None once all jobs are taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self, hand: _Hand) -> _Job[T] | None:
        while self._waiting and self._waiting[0].value is None:
            self._waiting.popleft()
        if not self._waiting:
            return None
        oldest = self._waiting[0]
        if hand.in_a_row >= IN_A_ROW:
            return oldest
        if hand.likeness in self._alike:
            return self._alike[hand.likeness][0]
        held = {each.likeness for each in self._hands.values()} - {None}
        for job in islice(self._waiting, LOOK_AHEAD):
            if job.value is not None and job.likeness not in held:
                return job
        return oldest
