"""A prompt that waits for its tokens, and those that it has."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Float32, Int, Int32, Key, UInt32

from fdjax.errors import ConfigError, DataError
from fdjax.ops import TEMPERATURE
from fdjax.ranges import Whole, require
from fdjax.sampling.config import GREEDY
from fdjax.sampling.draw import Drawn
from fdjax.sampling.sampler import Sample
from fdjax.sampling.stop_strings import StopStrings

__all__ = ["Limits", "Request"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request must keep to."""

    budget: int
    """Most tokens that may be asked for."""
    longest: int
    """Most tokens of prompt and completion."""
    vocabulary: int
    """Entries of the embedding table."""


@dataclass(eq=False)
class Request:
    """A prompt, and the tokens that it has so far."""

    number: int
    """By the order in which they came: who came first is preferred."""
    prompt: int
    """Tokens of the prompt."""
    budget: int
    """Tokens that may be drawn."""
    temperature: float
    """τ at which they are."""
    key: UInt32[np.ndarray, " words"]
    tokens: Int32[np.ndarray, " most"]
    """Prompt, then what was drawn."""
    known: Float32[np.ndarray, "3 budget"]
    """Of each drawn token: log-probability, that of behaviour, entropy."""
    drawn: int = 0
    future: Future[Sample] = field(default_factory=Future)

    @classmethod
    def make(
        cls,
        number: int,
        prompt: Sequence[int] | Int[np.ndarray, " S"],
        key: Key[jax.Array, ""],
        budget: int,
        temperature: float,
        limits: Limits,
    ) -> "Request":
        """A new one.

        Raises:
          DataError: the prompt cannot be continued.
          ConfigError: budget, temperature or key is none.
        """
        require("max_new_tokens", budget, Whole(1, limits.budget))
        require("temperature", temperature, TEMPERATURE, remedy=GREEDY)
        ids = np.asarray(prompt)
        if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
            raise DataError(
                "expected a prompt of one or more token ids, got "
                f"{ids.dtype}{list(ids.shape)}"
            )
        beyond = ids[(ids < 0) | (ids >= limits.vocabulary)]
        if beyond.size:
            raise DataError(
                f"expected token ids from 0 to {limits.vocabulary - 1}, the model's "
                f"vocabulary, got {np.unique(beyond)[:8].tolist()}: tokenizer and "
                "model do not belong together"
            )
        if ids.size + budget > limits.longest:
            raise DataError(
                f"expected prompt and completion to fit {limits.longest} tokens, got "
                f"{ids.size} + {budget}: ask for fewer, or raise SlotsConfig.longest "
                "or capacity"
            )
        if key.shape or key.dtype != jax.eval_shape(jax.random.key, 0).dtype:
            raise ConfigError(
                "expected one typed PRNG key of the default kind, such as "
                f"jax.random.key(0), got {key.dtype}{list(key.shape)}"
            )
        return cls(
            number=number,
            prompt=ids.size,
            budget=budget,
            temperature=temperature,
            key=np.asarray(jax.device_get(jax.random.key_data(key))),
            tokens=np.append(ids, np.zeros(budget)).astype(np.int32),
            known=np.zeros((3, budget), np.float32),
        )

    @property
    def length(self) -> int:
        """Tokens so far."""
        return self.prompt + self.drawn

    def append(self, drawn: Drawn) -> None:
        """More tokens, in order [n]."""
        count = len(drawn.token)
        self.tokens[self.length : self.length + count] = drawn.token
        self.known[:, self.drawn : self.drawn + count] = drawn[1:]
        self.drawn += count

    def sample(
        self, stops: frozenset[int], strings: StopStrings | None, version: int
    ) -> Sample | None:
        """What it came to, once it has ended; by a string, too."""
        stopped = int(self.tokens[self.length - 1]) in stops
        if strings is not None:
            end = strings.end(self.tokens[self.prompt : self.length])
            if end is not None:
                self.drawn, stopped = end, True
        if not stopped and self.drawn < self.budget:
            return None
        logprobs, behaviour, entropy = self.known[:, : self.drawn].copy()
        return Sample(
            tokens=self.tokens[self.prompt : self.length].copy(),
            logprobs=logprobs,
            behaviour_logprobs=behaviour,
            entropy=entropy,
            stop="stop" if stopped else "length",
            version=version,
        )
