"""Problem batches that leave out what is always or never solved of late."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from fdjax.errors import CheckpointError, ConfigError
from fdjax.jsonl import shorten
from fdjax.ranges import FLAG, SEED, Number, Whole, require, require_fields

__all__ = ["PassRateSampling", "PassRateStream", "SampleCounts"]

Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class PassRateSampling:
    """Which problems to leave out, and how often to see whether that is still right."""

    lowest: float = 0.0
    """A problem with at most this recent pass rate counts as never solved."""
    highest: float = 1.0
    """A problem with at least this recent pass rate counts as always solved."""
    least_attempts: int = 32
    """Judged attempts before a problem may be left out; ours: four groups of 8."""
    recent_attempts: int = 64
    """Attempts that count: the fewest latest groups that hold so many."""
    retry_share: float = 0.05
    """Places of a batch for problems left out, those drawn longest ago first. None
    comes more often than it would if all were drawn in turn."""
    prefer_middle: bool = False
    """Whether a problem is drawn in an epoch with probability 4p(1-p), where p is its
    recent pass rate with one success and one failure added."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            lowest=Number(least=0, most=1),
            highest=Number(least=0, most=1),
            least_attempts=Whole(1),
            recent_attempts=Whole(1),
            retry_share=Number(least=0, most=1),
            prefer_middle=FLAG,
        )
        if self.lowest >= self.highest:
            raise ConfigError(
                "expected PassRateSampling.lowest to be below highest, got "
                f"{self.lowest} and {self.highest}: no pass rate would be between them"
            )
        if self.recent_attempts < self.least_attempts:
            raise ConfigError(
                "expected PassRateSampling.recent_attempts to be at least "
                f"least_attempts = {self.least_attempts}, got {self.recent_attempts}: "
                "no problem would ever have enough"
            )


@dataclass(frozen=True, kw_only=True)
class SampleCounts:
    """What a stream leaves out, and what it drew nevertheless."""

    problems: int
    """All of them."""
    solved: int
    """Left out now: always solved of late."""
    unsolved: int
    """Left out now: never solved of late."""
    retried: int
    """Places so far that `retry_share` gave to problems left out."""
    filled: int
    """Places so far that went to problems left out because no others were left."""


class PassRateStream(Generic[Item]):
    """Shuffled epochs in batches, like `batches`, without what teaches nothing.

    A batch holds no problem twice. Where fewer problems than a batch are left, it is
    filled with those left out, drawn uniformly; `counts` says how often.

    Batches are a function of the seed and of what `observe` was told before each, in
    that order. `get_state` and `set_state` resume exactly. It may be told late: with
    results of the last batch but one, say, or of an evaluation before the first.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        batch_size: int,
        seed: int,
        sampling: PassRateSampling | None = None,
    ):
        """Begin at the first batch, with nothing known.

        Args:
          items: problems, or anything that can be a key of a dict; no two are equal.
          batch_size: items in a batch.
          seed: of their order.
          sampling: what to leave out; None: the defaults.

        Raises:
          ConfigError: two items are equal, the batch is empty or larger than the
            dataset, or the seed is out of range.
        """
        require("seed", seed, SEED)
        require(
            f"batch_size of {len(items)} items",
            batch_size,
            Whole(1, len(items)),
            remedy="lower it or provide more data",
        )
        self._items = list(items)
        self._index = {item: index for index, item in enumerate(items)}
        if len(self._index) < len(self._items):
            raise ConfigError(
                f"expected items that differ, got {len(self._items)} of which "
                f"{len(self._index)} do: each has one record; remove duplicates, for "
                "problems with fdjax.data.duplicates.deduplicate"
            )
        self._batch_size = batch_size
        self._sampling = sampling or PassRateSampling()
        self._data = {
            "items": len(self._items),
            "batch_size": batch_size,
            "seed": seed,
            **asdict(self._sampling),
        }
        # NumPy's numbers are settings, too, but no JSON.
        self._data = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in self._data.items()
        }
        self._forget()

    def __iter__(self) -> Iterator[list[Item]]:
        return self

    def __next__(self) -> list[Item]:
        """The next batch."""
        self._batches += 1
        chosen = self._due()
        self._retried += len(chosen)
        chosen += self._walk(chosen)
        if missing := self._batch_size - len(chosen):
            chosen += self._left(self._is_out, chosen)[:missing]
            self._filled += missing
        self._drawn[chosen] = self._batches
        return [self._items[index] for index in chosen]

    def observe(self, item: Item, *, passed: int, judged: int) -> None:
        """Take note of a group of attempts at an item.

        Args:
          item: of the stream.
          passed: how many of them succeeded.
          judged: how many were judged at all; a group of none says nothing.

        Raises:
          ConfigError: there is no such item, or more passed than were judged.
        """
        index = self._index.get(item)
        if index is None:
            raise ConfigError(
                f"expected an item of this stream, got {shorten(repr(item))}: observe "
                "what it drew"
            )
        require("judged", judged, Whole(0))
        require("passed", passed, Whole(0, judged), remedy="count the judged only")
        if judged:
            self._recent[index].append((int(passed), int(judged)))
            self._judge(index)

    @property
    def counts(self) -> SampleCounts:
        """What is left out now, and what was drawn nevertheless."""
        return SampleCounts(
            problems=len(self._items),
            solved=int(self._is_solved.sum()),
            unsolved=int(self._is_unsolved.sum()),
            retried=self._retried,
            filled=self._filled,
        )

    def get_state(self) -> dict[str, Any]:
        """Position and records, as JSON holds them."""
        return {
            "data": dict(self._data),
            "epoch": self._epoch,
            "place": self._place,
            "batches": self._batches,
            "retried": self._retried,
            "filled": self._filled,
            "drawn": {str(i): int(self._drawn[i]) for i in np.flatnonzero(self._drawn)},
            "recent": {
                str(index): [list(group) for group in groups]
                for index, groups in enumerate(self._recent)
                if groups
            },
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue where `get_state` was called.

        Raises:
          CheckpointError: it was that of a stream of another size, batch, seed or
            sampling.
        """
        saved = state["data"]
        if saved != self._data:
            raise CheckpointError(
                f"Expected the state of a stream of {self._data}, got one of {saved}; "
                "give the same settings, or begin anew."
            )
        self._forget()
        self._epoch, self._place = state["epoch"], state["place"]
        self._batches = state["batches"]
        self._retried, self._filled = state["retried"], state["filled"]
        for index, batch in state["drawn"].items():
            self._drawn[int(index)] = batch
        for index, groups in state["recent"].items():
            self._recent[int(index)] = [(passed, judged) for passed, judged in groups]
            self._judge(int(index))

    def _forget(self) -> None:
        count = len(self._items)
        self._epoch = self._place = 0
        self._batches = self._retried = self._filled = 0
        self._recent: list[list[tuple[int, int]]] = [[] for _ in range(count)]
        self._drawn = np.zeros(count, np.int64)  # the last batch with it, from 1
        self._is_solved = np.zeros(count, bool)
        self._is_unsolved = np.zeros(count, bool)
        self._chance = np.ones(count)
        self._shuffle: tuple[int, np.ndarray, np.ndarray] | None = None

    @property
    def _is_out(self) -> np.ndarray:
        return self._is_solved | self._is_unsolved

    def _judge(self, index: int) -> None:
        """Decide about an item from its recent groups, and forget older ones."""
        groups, sampling = self._recent[index], self._sampling
        passed, judged = (sum(numbers) for numbers in zip(*groups, strict=True))
        while judged - groups[0][1] >= sampling.recent_attempts:
            oldest = groups.pop(0)
            passed, judged = passed - oldest[0], judged - oldest[1]
        is_known = judged >= sampling.least_attempts
        rate = passed / judged
        self._is_unsolved[index] = is_known and rate <= sampling.lowest
        self._is_solved[index] = is_known and rate >= sampling.highest
        if sampling.prefer_middle:
            smoothed = (passed + 1) / (judged + 2)
            self._chance[index] = 4 * smoothed * (1 - smoothed)

    def _due(self) -> list[int]:
        """What this batch retries of the items left out."""
        size, share = self._batch_size, self._sampling.retry_share
        before, after = (
            int(number * size * share) for number in (self._batches - 1, self._batches)
        )
        epoch = -(-len(self._items) // size)  # batches of all items
        rested = (self._drawn == 0) | (self._batches - self._drawn >= epoch)
        due = np.flatnonzero(self._is_out & rested)
        longest_ago = due[np.argsort(self._drawn[due], kind="stable")]
        return longest_ago[: after - before].tolist()

    def _walk(self, taken: Sequence[int]) -> list[int]:
        """The next items that are in, to fill the batch as far as they go.

        What is left of an epoch and the whole of the next are gone through. An item
        that neither had (its chance decided so) comes before one that is out.
        """
        chosen: list[int] = []
        wanted = self._batch_size - len(taken)
        for _ in range(2):
            order, luck = self._shuffled()
            free = ~self._is_out & (luck < self._chance)
            free[[*taken, *chosen]] = False
            places = np.flatnonzero(free[order[self._place :]])[: wanted - len(chosen)]
            chosen += order[self._place + places].tolist()
            if len(chosen) == wanted:
                self._place += int(places[-1]) + 1 if len(places) else 0
                return chosen
            self._epoch, self._place = self._epoch + 1, 0
        others = self._left(~self._is_out, [*taken, *chosen])
        return chosen + others[: wanted - len(chosen)]

    def _left(self, which: np.ndarray, taken: Sequence[int]) -> list[int]:
        """The items of a kind that are not taken, in the epoch's order."""
        free = which.copy()
        free[list(taken)] = False
        order, _ = self._shuffled()
        return order[free[order]].tolist()

    def _shuffled(self) -> tuple[np.ndarray, np.ndarray]:
        """The order of the items in this epoch, and a number in [0, 1) for each."""
        if self._shuffle is None or self._shuffle[0] != self._epoch:
            count = len(self._items)
            seeds = np.random.SeedSequence([self._data["seed"], self._epoch])
            # Of NumPy's random numbers, the bits alone are the same in every version.
            bits = np.random.Philox(seeds).random_raw(2 * count)
            order = np.argsort(bits[:count], kind="stable")
            self._shuffle = self._epoch, order, (bits[count:] >> 11) * 2.0**-53
        return self._shuffle[1:]
