"""An episode: turns of tokens, which of them are the policy's own, and how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

from fdjax.records import Problem
from fdjax.tools import Observation

__all__ = ["Ended", "Episode", "Row", "Turn"]

Ended = Literal["answer", "calls", "lost", "prompt", "tokens", "turn"]
"""Why an episode ended: the policy answered; it called on when no calls were left; the
request for a turn was lost; the prompt was too long; the episode's tokens were used up;
one turn's were."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Tokens that one side of a conversation wrote, as they were sampled or read."""

    role: Literal["user", "assistant", "tool"]
    """The assistant's tokens are the policy's own: only they are trained on. A tool's
    hold all that stands between two of the assistant's turns."""
    tokens: Int32[np.ndarray, " N"]
    """Token ids; never encoded anew."""
    logprobs: Float32[np.ndarray, " N"] | None = None
    """Of the policy's own tokens: log-probability, nats, under the whole policy."""
    behaviour_logprobs: Float32[np.ndarray, " N"] | None = None
    """The same under the distribution that was drawn from."""
    entropy: Float32[np.ndarray, " N"] | None = None
    """Of the policy's own tokens: entropy, nats."""
    version: int | None = None
    """Of the policy's own tokens: optimizer steps that had made the weights."""
    observations: tuple[Observation, ...] = ()
    """Of a tool's turn: the calls that it answers."""


class Row(NamedTuple):
    """What follows the prompt of an episode, turns joined."""

    tokens: Int32[np.ndarray, " N"]
    mask: Bool[np.ndarray, " N"]
    """True on the policy's own tokens."""
    logprobs: Float32[np.ndarray, " N"]
    """0 outside the mask."""
    entropy: Float32[np.ndarray, " N"]
    """0 outside the mask; NaN where the sampler does not know it."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One attempt at a problem, before anybody has judged it."""

    problem: Problem
    turns: tuple[Turn, ...]
    """The prompt, then the policy's turns with the tools' between them."""
    ended: Ended
    text: str
    """What is to be judged: the last turn's words, or the file that was written last
    in a fence where these hold no answer."""
    from_file: bool = False
    """Whether it is the file."""
    reason: str = ""
    """Of a request that was lost: what the sampler says."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of sampling and of tools."""

    @property
    def prompt(self) -> Int32[np.ndarray, " S"]:
        """Token ids of what the policy read first."""
        return self.turns[0].tokens

    @property
    def finished(self) -> bool:
        """Whether the policy ended it, rather than a limit."""
        return self.ended == "answer"

    @property
    def own_turns(self) -> int:
        """Turns of the policy."""
        return sum(turn.role == "assistant" for turn in self.turns)

    @property
    def observations(self) -> tuple[Observation, ...]:
        """All calls with their answers, in order.

        Those of a last turn may have been recorded without tokens, since none were
        left.
        """
        return tuple(each for turn in self.turns for each in turn.observations)

    @property
    def version(self) -> int:
        """Optimizer steps that had made the oldest of the weights; 0 without any."""
        known = (turn.version for turn in self.turns)
        return min((each for each in known if each is not None), default=0)

    @property
    def last(self) -> slice:
        """Where the policy's last turn stands in `row`; nowhere without one."""
        turns = self.turns[1:]
        ends = np.cumsum([len(turn.tokens) for turn in turns])
        for turn, end in reversed([*zip(turns, ends.tolist(), strict=True)]):
            if turn.role == "assistant":
                return slice(end - len(turn.tokens), end)
        return slice(0, 0)

    @cached_property
    def row(self) -> Row:
        """What follows the prompt, as it is trained on."""
        turns = self.turns[1:]
        own = [np.full(len(turn.tokens), turn.role == "assistant") for turn in turns]
        return Row(
            tokens=_joined([turn.tokens for turn in turns], np.int32),
            mask=_joined(own, np.bool_),
            logprobs=_joined([_values(turn, turn.logprobs) for turn in turns]),
            entropy=_joined([_entropy(turn) for turn in turns]),
        )


def _entropy(turn: Turn) -> np.ndarray:
    if turn.entropy is None and turn.role == "assistant":
        return np.full(len(turn.tokens), np.nan, np.float32)
    return _values(turn, turn.entropy)


def _values(turn: Turn, values: np.ndarray | None) -> np.ndarray:
    return np.zeros(len(turn.tokens), np.float32) if values is None else values


def _joined(parts: Sequence[np.ndarray], dtype: type = np.float32) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)
