"""A rollout whose attempts are sampled, while judges and writers are still at it."""

import base64
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fdjax.data.pipeline import fingerprint
from fdjax.episodes import Episode
from fdjax.errors import DataError
from fdjax.feedback import Feedback
from fdjax.judge import Judgement
from fdjax.records import Problem
from fdjax.rollout.codec import decode_group, encode_group
from fdjax.rollout.exchange import exchange
from fdjax.rollout.journal import Page
from fdjax.rollout.trajectory import Rollout, Trajectory
from fdjax.sampling import Sampler

__all__ = ["Groups", "Pending", "as_sampled", "is_whole", "restored_groups"]

_NOT_YET = Judgement(reward=None, reason="not judged yet")
_NOTHING_YET = Feedback(error="not written yet")


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The groups of this process on their way through the stages."""

    first: int
    """Place of the first of them in the rollout."""
    played: Future[list[list[Episode]]] = field(default_factory=Future)
    """Their episodes, once the last one has ended."""
    whole: dict[int, list[Trajectory]] = field(default_factory=dict)
    """Those that have been through all stages, by place."""


@dataclass(frozen=True, kw_only=True)
class Pending:
    """Asked of all processes in the same order: what it gives is of all groups."""

    problems: Sequence[Problem]
    groups: Groups
    done: Future[list[list[Trajectory]]]
    """The groups of this process, judged and commented."""
    watch: Callable[[Future[Any]], AbstractContextManager[Any]]
    """See `Pipeline.watch`."""
    sampler: Sampler
    rollout: Callable[[Sequence[Sequence[Trajectory]]], Rollout]
    """Makes one of all groups."""
    page: Page | None = None
    """Of the journal, which learns that all groups are through."""

    @property
    def unfinished(self) -> int:
        """Groups of this process that judge or writer still have."""
        return len(self.groups.played.result()) - len(self.groups.whole)

    def sampled(self, count: int) -> Rollout:
        """The first groups as they were sampled, without judgement and feedback."""
        own = self._as_sampled()
        mine = [group for group in own if group[0].group < count]
        return self.rollout(exchange(mine, self.problems[:count]))

    def result(self) -> Rollout:
        """All of it; waits for judges and writers. The second time it is known.

        Raises:
          What `Pipeline.collect` does.
        """
        return self._result

    def settle(self) -> dict[str, Any]:
        """All that is known of it by now, as JSON holds it; waits for nobody.

        `Pipeline.resume` goes on from there.
        """
        own = [
            self.groups.whole.get(group[0].group, group) for group in self._as_sampled()
        ]
        return {
            "problems": [fingerprint([problem]) for problem in self.problems],
            "groups": [
                base64.b64encode(encode_group(group)).decode()
                for group in exchange(own, self.problems)
            ],
        }

    def cancel(self) -> None:
        """Nobody wants it any more: judges and writers are not waited for."""
        self.done.cancel()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Pending":
        """Itself: what was sampled does not change."""
        return self

    @cached_property
    def _result(self) -> Rollout:
        try:
            with self.watch(self.done):
                # On several processes the others learn here whether it failed.
                self.sampler.serve(self.done)
                own = self.done.result()
            rollout = self.rollout(exchange(own, self.problems))
        finally:
            self.done.cancel()
        if self.page is not None:
            self.page.end()
        return rollout

    def _as_sampled(self) -> list[list[Trajectory]]:
        """The groups of this process, not judged."""
        return [
            as_sampled(place, episodes)
            for place, episodes in enumerate(
                self.groups.played.result(), self.groups.first
            )
        ]


def as_sampled(place: int, episodes: Sequence[Episode]) -> list[Trajectory]:
    """A group that was not judged."""
    return [
        Trajectory(
            episode=episode,
            group=place,
            member=member,
            judgement=_NOT_YET,
            feedback=_NOTHING_YET,
        )
        for member, episode in enumerate(episodes)
    ]


def is_whole(group: Sequence[Trajectory]) -> bool:
    """Whether it has been through all stages."""
    return all(each.judgement != _NOT_YET for each in group)


def restored_groups(
    saved: Mapping[str, Any], problems: Mapping[str, Problem]
) -> tuple[list[Problem], list[list[Trajectory]]]:
    """What `Pending.settle` told of.

    Args:
      saved: what it gave.
      problems: by fingerprint.

    Raises:
      DataError: it is of other problems, or damaged.
    """
    unknown = [one for one in saved["problems"] if one not in problems]
    if unknown:
        raise DataError(
            "expected a rollout of the problems that are trained on, got "
            f"{len(unknown)} of other problems: give the same ones"
        )
    found = [problems[one] for one in saved["problems"]]
    groups = [
        decode_group(base64.b64decode(group), problem)
        for group, problem in zip(saved["groups"], found, strict=True)
    ]
    return found, groups
