"""How to sample, checked."""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import jax
import numpy as np

from fdjax.errors import ConfigError

__all__ = ["SamplingConfig", "require_integer"]


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How tokens are drawn, and when a row ends.

    In a pytree it is a constant, so that samples carry how they were drawn.
    """

    max_new_tokens: int
    """T, tokens after which a row ends unfinished."""
    temperature: float = 1.0
    """Divides the logits; positive. Greedy decoding is `top_k=1`."""
    top_p: float = 1.0
    """Probability mass of the nucleus; 1 keeps all."""
    top_k: int = 0
    """Most probable tokens that are kept; 0 keeps all."""
    stop_tokens: tuple[int, ...] = ()
    """Tokens that end a row; the stop token itself belongs to the row."""
    pad_token: int = 0
    """Fills the row after its end."""

    def __post_init__(self) -> None:
        require_integer("max_new_tokens", self.max_new_tokens, least=1)
        # The least float32 that a device does not take for 0.
        least = float(np.finfo(np.float32).tiny)
        if not (_is_real(self.temperature) and least <= self.temperature < math.inf):
            raise ConfigError(
                f"expected a positive, finite temperature, got {self.temperature!r}: "
                "for greedy decoding set top_k=1"
            )
        if not (_is_real(self.top_p) and 0 < self.top_p <= 1):
            raise ConfigError(f"expected top_p in (0, 1], got {self.top_p!r}")
        require_integer("top_k", self.top_k, least=0, meaning=" (0 keeps all)")
        if not isinstance(self.stop_tokens, tuple):
            raise ConfigError(
                f"expected stop_tokens to be a tuple, got {self.stop_tokens!r}"
            )
        for token in self.stop_tokens:
            require_integer("each of stop_tokens", token, least=0)
        require_integer("pad_token", self.pad_token, least=0)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def require_integer(name: str, value: Any, *, least: int, meaning: str = "") -> None:
    """Raises ConfigError with the name unless the value is an integer from `least`."""
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or value < least:
        raise ConfigError(
            f"expected {name} to be an integer of at least {least}{meaning}, got "
            f"{value!r}"
        )
