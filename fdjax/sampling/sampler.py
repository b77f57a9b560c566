"""What samples for a rollout: two verbs, and what comes back."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float32, Int, Int32, Key

from fdjax.errors import FdjaxError

__all__ = ["Sample", "Sampler", "SamplerClosedError"]


class SamplerClosedError(FdjaxError, RuntimeError):
    """A sampler was closed, or broke down, before it had sampled what was asked for."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """What a policy said after a prompt."""

    tokens: Int32[np.ndarray, " N"]
    """As drawn, the stop token included."""
    logprobs: Float32[np.ndarray, " N"]
    """Nats, under the policy at τ: the losses' `old_logprobs` (`Completions`)."""
    behaviour_logprobs: Float32[np.ndarray, " N"]
    """Nats, under what was drawn from: the policy after all cuts, normalised anew."""
    entropy: Float32[np.ndarray, " N"] | None
    """Nats, of the policy at τ, before any cut; None where a sampler cannot know it."""
    stop: Literal["stop", "length"]
    """Whether a stop token ended it, or its budget."""
    version: int
    """Of the weights that drew every one of its tokens."""


@runtime_checkable
class Sampler(Protocol):
    """Draws tokens after prompts; in this process, or elsewhere.

    In this process a token is a function of weights, prefix, key and its number alone,
    never of what else is sampled at the time. Elsewhere it may not be: a server draws
    with random numbers of its own.
    """

    def submit(
        self,
        prompt: Sequence[int] | Int[np.ndarray, " S"],
        key: Key[jax.Array, ""],
        *,
        max_new_tokens: int,
    ) -> Future[Sample]:
        """Asks for tokens after a prompt.

        Args:
          prompt: token ids; the next turn of an episode is its whole prefix.
          key: typed; the n-th token is drawn with fold_in(key, n), or the key becomes
            a server's seed.
          max_new_tokens: tokens after which it ends unfinished.

        Returns:
          The sample to come. A request that cannot be served fails in it, and in
          nothing else.
        """
        ...

    def publish(self, params: Any, version: int) -> None:
        """Weights for whatever is submitted from now on."""
        ...
