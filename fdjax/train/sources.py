"""Where the batches of a step come from; reference proofs are one such source."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from transformers import PreTrainedTokenizerFast

from fdjax.data.formats import PLAIN, PromptFormat
from fdjax.data.pipeline import BatchStream, batches, fingerprint
from fdjax.data.tokenizer import settings_of
from fdjax.errors import CheckpointError
from fdjax.metrics import StageTimer
from fdjax.ranges import Number, Whole, require
from fdjax.records import Metrics, Problem
from fdjax.rollout import Rollout, supervised_batch
from fdjax.train.state import TrainState

__all__ = [
    "AlternatingSource",
    "ResumableSource",
    "Source",
    "StepData",
    "SupervisedSource",
]


@dataclass(frozen=True, kw_only=True)
class StepData:
    """What one iteration trains on."""

    batches: Sequence[Any]
    """One NamedTuple of host arrays for each optimizer step."""
    metrics: Metrics
    """Statistics known before the optimizer steps."""
    rollout: Rollout | None = None
    """The attempts, when the data was sampled."""


@runtime_checkable
class Source(Protocol):
    """An endless, resumable supply of `StepData`."""

    def next(self, state: TrainState, timer: StageTimer) -> StepData:
        """Data of the next iteration, sampled from `state.policy` if at all."""
        ...

    def get_state(self) -> dict[str, Any]:
        """JSON-like position of the data iterator.

        It may hold `Deferred` parts: what is not known before somebody is done.
        """
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a position that `get_state` gave.

        Raises:
          CheckpointError: it is a position in other data.
        """
        ...


class ResumableSource:
    """A source that draws from one stream of batches."""

    def __init__(
        self,
        items: Sequence[Any],
        tokenizer: PreTrainedTokenizerFast,
        format: PromptFormat,
        *,
        batch_size: int,
        seed: int,
        stream: BatchStream[Any] | None = None,
        **settings: int | str,
    ):
        """Begins at the first batch, or where the stream is.

        Args:
          items: rows, JSON values or dataclasses of such.
          tokenizer: of their texts.
          format: of their prompts.
          batch_size: rows in a batch.
          seed: of their order.
          stream: draws them; shuffled epochs by default.
          settings: whatever else decides what a row becomes.
        """
        self.stream: BatchStream[Any] = (
            batches(items, batch_size=batch_size, seed=seed)
            if stream is None
            else stream
        )
        """Draws the rows of a batch."""
        data = {
            "source": type(self).__name__,
            "rows": len(items),
            "content of the rows": fingerprint(items),
            "tokenizer": fingerprint([settings_of(tokenizer)]),
            "format": fingerprint([format.settings]),
            "batch_size": batch_size,
            "seed": seed,
            **settings,
        }
        # NumPy's numbers are settings, too, but no JSON.
        self.data = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in data.items()
        }
        """Which data it is a position in."""

    def get_state(self) -> dict[str, Any]:
        """Position in the data, and which data."""
        return {"data": self.data, "position": self.stream.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a position that `get_state` gave.

        Raises:
          CheckpointError: it is a position in other data.
        """
        _check_same_data(state, self.data)
        self.stream.set_state(state["position"])

    def skip(self, iterations: int) -> None:
        """Leaves out the data of the next `iterations`.

        Raises:
          ConfigError: their number is negative.
        """
        require("iterations", iterations, Whole(0))
        for _ in range(iterations):
            next(self.stream)


class SupervisedSource(ResumableSource):
    """Rows (problem, feedback or None, proof) for SFT, one optimizer step each.

    Raises:
      ConfigError: a size or the seed is out of range, or there are fewer rows.
    """

    def __init__(
        self,
        rows: Sequence[tuple[Problem, str | None, str]],
        tokenizer: PreTrainedTokenizerFast,
        *,
        batch_size: int,
        seed: int,
        prompt_width: int,
        response_width: int,
        format: PromptFormat = PLAIN,
    ):
        require("prompt_width", prompt_width, Whole(1))
        require("response_width", response_width, Whole(1))
        self._widths = {"prompt_width": prompt_width, "response_width": response_width}
        super().__init__(
            rows,
            tokenizer,
            format,
            batch_size=batch_size,
            seed=seed,
            stream=None,
            **self._widths,
        )
        self._tokenizer = tokenizer
        self._format = format

    def next(self, state: TrainState, timer: StageTimer) -> StepData:
        """The next rows in shuffled order."""
        del state
        with timer.stage("data"):
            batch, metrics = supervised_batch(
                self._tokenizer, next(self.stream), format=self._format, **self._widths
            )
        return StepData(batches=[batch], metrics=metrics)


class AlternatingSource:
    """Two sources in turn, the second one in a fixed share of the iterations.

    Raises:
      ConfigError: the share is not in [0, 1].
    """

    def __init__(self, first: Source, second: Source, *, share: float):
        require("share", share, Number(least=0, most=1))
        self._sources = (first, second)
        self._share = share
        self._turn = 0
        self._data = {"source": type(self).__name__, "share": float(share)}

    def next(self, state: TrainState, timer: StageTimer) -> StepData:
        """Data of whichever source has the turn."""
        before, after = (
            int(turn * self._share) for turn in (self._turn, self._turn + 1)
        )
        self._turn += 1
        return self._sources[after - before].next(state, timer)

    def get_state(self) -> dict[str, Any]:
        """Both positions, the turn and the share that decides whose turn it is."""
        first, second = (source.get_state() for source in self._sources)
        return {
            "data": self._data,
            "turn": self._turn,
            "first": first,
            "second": second,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a position that `get_state` gave.

        Raises:
          CheckpointError: it is a position in other data, or in other turns.
        """
        _check_same_data(state, self._data)
        self._turn = int(state["turn"])
        self._sources[0].set_state(state["first"])
        self._sources[1].set_state(state["second"])


def _check_same_data(state: dict[str, Any], data: dict[str, Any]) -> None:
    """Makes sure that a saved position is one in these data."""
    saved = state.get("data", {})
    differences = [
        f"{name} was {saved.get(name, 'not said')}, now {data.get(name, 'not said')}"
        for name in {**saved, **data}
        if saved.get(name) != data.get(name)
    ]
    if differences:
        raise CheckpointError(
            "Expected the data that the checkpoint was trained on, got others: "
            f"{'; '.join(differences)}. A position means nothing in other data: give "
            "the same rows in the same order and the same settings, or train anew in "
            "another folder."
        )
