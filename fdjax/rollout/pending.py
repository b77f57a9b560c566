"""A rollout whose attempts are sampled, while judges and writers are still at it."""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property

from fdjax.episodes import Episode
from fdjax.feedback import Feedback
from fdjax.judge import Judgement
from fdjax.records import Problem
from fdjax.rollout.exchange import exchange
from fdjax.rollout.trajectory import Rollout, Trajectory
from fdjax.sampling import Sampler

__all__ = ["Groups", "Pending"]

_NOT_YET = Judgement(reward=None, reason="not judged yet")
_NOTHING_YET = Feedback(error="not written yet")


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The groups of this process on their way through the stages."""

    first: int
    """Place of the first of them in the rollout."""
    played: Future[list[list[Episode]]] = field(default_factory=Future)
    """Their episodes, once the last one has ended."""
    finished: set[Hashable] = field(default_factory=set)
    """The tasks of those that have been through all stages."""


@dataclass(frozen=True, kw_only=True)
class Pending:
    """Asked of all processes in the same order: what it gives is of all groups."""

    problems: Sequence[Problem]
    version: int
    """Optimizer steps that made the weights."""
    groups: Groups
    done: Future[list[list[Trajectory]]]
    """The groups of this process, judged and commented."""
    sampler: Sampler
    rollout: Callable[[Sequence[list[Trajectory]]], Rollout]
    """Makes one of all groups."""

    @property
    def unfinished(self) -> int:
        """Groups of this process that judge or writer still have."""
        episodes = self.groups.played.result()
        return len(episodes) - len(self.groups.finished)

    def sampled(self, count: int) -> Rollout:
        """The first groups as they were sampled, without judgement and feedback."""
        episodes = self.groups.played.result()
        own = [
            [
                Trajectory(
                    episode=episode,
                    group=group,
                    member=member,
                    judgement=_NOT_YET,
                    feedback=_NOTHING_YET,
                )
                for member, episode in enumerate(members)
            ]
            for group, members in enumerate(episodes, self.groups.first)
            if group < count
        ]
        return self.rollout(exchange(own, self.problems[:count]))

    def result(self) -> Rollout:
        """All of it; waits for judges and writers. The second time it is known.

        Raises:
          What `Pipeline.collect` does.
        """
        return self._result

    @cached_property
    def _result(self) -> Rollout:
        try:
            # On several processes the others learn here whether it failed.
            self.sampler.serve(self.done)
            return self.rollout(exchange(self.done.result(), self.problems))
        finally:
            self.done.cancel()
