"""Trajectories: what was sampled, what it was worth, and what was said of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

from fdjax.data.packing import pad_left, pad_right
from fdjax.errors import DataError
from fdjax.feedback import Feedback
from fdjax.judge import Judgement
from fdjax.records import Problem
from fdjax.sampling import SamplingConfig

__all__ = ["Responses", "Rollout", "Trajectory", "Turn"]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Tokens that one side of a conversation wrote, as they were sampled or read."""

    role: Literal["user", "assistant"]
    """The assistant's tokens are the policy's own: only they are trained on."""
    tokens: Int32[np.ndarray, " N"]
    """Token ids; never encoded anew."""
    logprobs: Float32[np.ndarray, " N"] | None = None
    """Of the policy's own tokens: log-probability, nats, under the whole policy
    (`Completions.logprobs`)."""
    entropy: Float32[np.ndarray, " N"] | None = None
    """Of the policy's own tokens: entropy, nats (`Completions.entropy`)."""


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """One attempt at a problem, from its prompt to the feedback on it."""

    problem: Problem
    group: int
    """Place of its problem among those of the rollout."""
    member: int
    """Place among the attempts at that problem."""
    turns: tuple[Turn, ...]
    """The prompt, then what the policy wrote; without tokens where the prompt was too
    long to sample from."""
    version: int
    """Optimizer steps that had made the weights that sampled it."""
    finished: bool
    """Whether the policy ended it, rather than the limit of tokens."""
    text: str
    """What the policy wrote, control tokens left out."""
    judgement: Judgement
    feedback: Feedback
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each stage that waited for it or its group."""

    @property
    def prompt(self) -> Turn:
        """What the policy read first."""
        return self.turns[0]

    @property
    def response(self) -> Turn:
        """What the policy wrote."""
        return self.turns[-1]

    @property
    def sampled(self) -> bool:
        """False where the prompt was too long to sample from."""
        return len(self.response.tokens) > 0


class Responses(NamedTuple):
    """What the policy wrote, as arrays; 0 beyond the end of a row."""

    tokens: Int32[np.ndarray, "B T"]
    """Right-padded."""
    mask: Bool[np.ndarray, "B T"]
    """True on sampled tokens."""
    logprobs: Float32[np.ndarray, "B T"]
    entropy: Float32[np.ndarray, "B T"]


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """B = P·G attempts; the G attempts at one problem stand side by side."""

    trajectories: tuple[Trajectory, ...]
    """[B]."""
    group_size: int
    """G."""
    prompt_width: int
    """S, tokens that a prompt may have."""
    response_width: int
    """T, tokens that an attempt may have."""
    pad: int
    """Token that fills up rows."""
    sampling: SamplingConfig | None = None
    """How the tokens were drawn; None where the sampler does not say."""

    def __post_init__(self) -> None:
        size = len(self.trajectories)
        if self.group_size < 1 or not size or size % self.group_size:
            raise DataError(
                f"Rollout: expected whole groups of group_size = {self.group_size} >= "
                f"1 attempts, got {size}; repeat each problem group_size times"
            )

    @cached_property
    def prompts(self) -> tuple[Int32[np.ndarray, "B S"], Bool[np.ndarray, "B S"]]:
        """Left-padded prompts, and where they are no padding.

        A prompt that does not fit is cut, to keep its place: nothing was sampled.
        """
        rows = [each.prompt.tokens[-self.prompt_width :] for each in self.trajectories]
        return pad_left(rows, width=self.prompt_width, pad=self.pad)

    @cached_property
    def responses(self) -> Responses:
        """What the policy wrote, as arrays."""
        turns = [each.response for each in self.trajectories]
        tokens, mask = pad_right(
            [turn.tokens for turn in turns], width=self.response_width, pad=self.pad
        )
        return Responses(
            tokens,
            mask,
            _placed([turn.logprobs for turn in turns], mask),
            _placed([turn.entropy for turn in turns], mask),
        )

    @cached_property
    def known(self) -> Bool[np.ndarray, " B"]:
        """False where nothing was decided."""
        return np.array([not each.judgement.missing for each in self.trajectories])

    @cached_property
    def rewards(self) -> Float32[np.ndarray, " B"]:
        """Rewards, 0 where they are missing."""
        rewards = [each.judgement.reward or 0.0 for each in self.trajectories]
        return np.array(rewards, np.float32)

    @property
    def groups(self) -> Sequence[tuple[Trajectory, ...]]:
        """The attempts at each problem."""
        return [
            self.trajectories[start : start + self.group_size]
            for start in range(0, len(self.trajectories), self.group_size)
        ]


def _placed(rows: Sequence[Any], mask: Bool[np.ndarray, "B T"]) -> np.ndarray:
    """Values of the masked places, row by row; 0 elsewhere."""
    values = np.zeros(mask.shape, np.float32)
    values[mask] = np.concatenate([np.zeros(0) if row is None else row for row in rows])
    return values
