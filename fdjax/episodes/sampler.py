"""What an episode asks of a sampler."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float32, Int32, Key

__all__ = ["Sample", "Sampler"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """What a policy wrote behind one prompt."""

    tokens: Int32[np.ndarray, " N"]
    """As they were drawn, the stop token included."""
    logprobs: Float32[np.ndarray, " N"]
    """Nats, under the whole policy (`Completions.logprobs`)."""
    entropy: Float32[np.ndarray, " N"]
    """Nats (`Completions.entropy`)."""
    behaviour_logprobs: Float32[np.ndarray, " N"]
    """Nats, under the distribution that was drawn from."""
    stop: Literal["stop", "length"]
    """Whether the policy ended it, or its tokens were used up."""
    version: int
    """Optimizer steps that had made the weights."""


@runtime_checkable
class Sampler(Protocol):
    """Samples behind prompts; a token depends on weights, prefix and key alone."""

    def submit(
        self, prompt: Sequence[int], key: Key[Array, ""], *, max_new_tokens: int
    ) -> "Future[Sample]":
        """Have one prompt continued.

        Args:
          prompt: token ids; those of an episode so far begin the next one's.
          key: typed PRNG key of this request.
          max_new_tokens: how many tokens may be drawn.
        """
        ...
