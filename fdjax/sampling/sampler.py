"""What samples for a rollout: what it is asked, and what comes back."""

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float32, Int, Int32, Key

from fdjax.errors import FdjaxError
from fdjax.sampling.config import SamplingConfig

__all__ = ["Sample", "Sampler", "SamplerClosedError", "SamplingError"]


class SamplerClosedError(FdjaxError, RuntimeError):
    """A sampler was closed, or broke down, before it had sampled what was asked for."""


class SamplingError(FdjaxError, RuntimeError):
    """There is no sample, or an engine does not hold the weights that it should.

    In a future it says that this request is lost; others are not.
    """


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """What a policy said after a prompt."""

    tokens: Int32[np.ndarray, " N"]
    """As drawn, the stop token included."""
    logprobs: Float32[np.ndarray, " N"]
    """Nats, under the policy: softmax(logits / τ) of the whole vocabulary, as
    `ops.token_logprobs` has it. The losses' `old_logprobs`: their ratio is 1 on policy
    whatever was cut."""
    behaviour_logprobs: Float32[np.ndarray, " N"]
    """Nats, under what was drawn from: the policy after top-k, top-p and min-p,
    normalised anew. More than `logprobs` where something was cut."""
    entropy: Float32[np.ndarray, " N"] | None
    """Nats, of the policy at τ, before any cut; None where a sampler cannot know it."""
    stop: Literal["stop", "length"]
    """Whether a stop token or string ended it, or its budget."""
    version: int
    """Of the weights that drew every one of its tokens."""


@runtime_checkable
class Sampler(Protocol):
    """Draws tokens after prompts; in this process, or elsewhere.

    In this process a token is a function of weights, prefix, key and its number alone,
    never of what else is sampled at the time. Elsewhere it may not be: a server draws
    with random numbers of its own.
    """

    @property
    def sampling(self) -> SamplingConfig:
        """How it draws where a request does not say otherwise."""
        ...

    def submit(
        self,
        prompt: Sequence[int] | Int[np.ndarray, " S"],
        key: Key[jax.Array, ""],
        *,
        max_new_tokens: int,
        temperature: float | None = None,
    ) -> Future[Sample]:
        """Asks for tokens after a prompt; from any thread.

        Args:
          prompt: token ids; the next turn of an episode is its whole prefix.
          key: typed; the n-th token is drawn with fold_in(key, n), or the key becomes
            a server's seed.
          max_new_tokens: tokens after which it ends unfinished.
          temperature: τ, positive; the sampler's own with None.

        Returns:
          The sample to come. A request that cannot be served fails in it, and in
          nothing else.
        """
        ...

    def publish(self, params: Any, version: int) -> None:
        """Weights for whatever is submitted from now on."""
        ...

    def rest(self) -> None:
        """Samples all that was submitted, then leaves the devices to others.

        Memory that it holds there is free until the next `publish`; before it nothing
        is sampled.
        """
        ...

    def together(self) -> AbstractContextManager[None]:
        """What is submitted within it is taken up at once, and nothing before its end.

        So the batches do not depend on when a thread came round to it.
        """
        ...

    def serve(self, until: Future[Any]) -> None:
        """Samples what is submitted, in this thread, until a future is done."""
        ...
