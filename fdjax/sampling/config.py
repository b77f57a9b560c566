"""How to sample, checked."""

from dataclasses import dataclass

import jax

from fdjax.ops import TEMPERATURE
from fdjax.ranges import TupleOf, Whole, require, require_fields
from fdjax.sampling.logits import TOP_P

__all__ = ["SamplingConfig"]


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
        require_fields(
            self,
            max_new_tokens=Whole(1),
            top_p=TOP_P,
            top_k=Whole(0),
            stop_tokens=TupleOf(Whole(0)),
            pad_token=Whole(0),
        )
        require(
            "SamplingConfig.temperature",
            self.temperature,
            TEMPERATURE,
            remedy="for greedy decoding set top_k=1",
        )
