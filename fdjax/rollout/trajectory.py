"""Trajectories: what was sampled, what it was worth, and what was said of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

from fdjax.data.packing import pad_left, pad_right
from fdjax.episodes import Episode, Row
from fdjax.errors import DataError
from fdjax.feedback import Feedback
from fdjax.judge import Judgement
from fdjax.records import Problem
from fdjax.sampling import SamplingConfig

__all__ = ["Responses", "Rollout", "Trajectory"]


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """One attempt at a problem, from its prompt to the feedback on it."""

    episode: Episode
    group: int
    """Place of its problem among those of the rollout."""
    member: int
    """Place among the attempts at that problem."""
    judgement: Judgement
    feedback: Feedback
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each stage that waited for it or its group."""

    @property
    def problem(self) -> Problem:
        """That it is an attempt at."""
        return self.episode.problem

    @property
    def row(self) -> Row:
        """What follows the prompt, as it is trained on.

        Nothing where the prompt was too long to sample from.
        """
        return self.episode.row

    @property
    def text(self) -> str:
        """What is judged, control tokens left out."""
        return self.episode.text

    @property
    def sampled(self) -> bool:
        """False where the prompt was too long to sample from."""
        return len(self.row.tokens) > 0


class Responses(NamedTuple):
    """What follows the prompts, as arrays; 0 beyond the end of a row."""

    tokens: Int32[np.ndarray, "B T"]
    """Right-padded."""
    valid: Bool[np.ndarray, "B T"]
    """False on padding."""
    mask: Bool[np.ndarray, "B T"]
    """True on the policy's own tokens."""
    logprobs: Float32[np.ndarray, "B T"]
    """0 outside the mask, as the entropy is."""
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
    """T, tokens that may follow it."""
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
        rows = [each.episode.prompt[-self.prompt_width :] for each in self.trajectories]
        return pad_left(rows, width=self.prompt_width, pad=self.pad)

    @cached_property
    def responses(self) -> Responses:
        """What follows the prompts, as arrays."""
        rows = [each.row for each in self.trajectories]
        tokens, valid = pad_right(
            [row.tokens for row in rows], width=self.response_width, pad=self.pad
        )
        return Responses(
            tokens,
            valid,
            _placed([row.mask for row in rows], valid),
            _placed([row.logprobs for row in rows], valid),
            _placed([row.entropy for row in rows], valid),
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


def _placed(rows: Sequence[np.ndarray], valid: Bool[np.ndarray, "B T"]) -> np.ndarray:
    """Values of the valid places, row by row; 0 elsewhere."""
    values = np.zeros(valid.shape, rows[0].dtype)
    values[valid] = np.concatenate(rows)
    return values
