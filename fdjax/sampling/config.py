"""How to sample, checked."""

from dataclasses import dataclass

import jax

from fdjax.errors import ConfigError
from fdjax.ops import TEMPERATURE
from fdjax.ranges import INT32_MAX, TupleOf, Whole, require, require_fields
from fdjax.sampling.logits import MIN_P, TOP_P

__all__ = ["GREEDY", "SamplingConfig", "SlotsConfig"]

GREEDY = "for greedy decoding set top_k=1"


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
    min_p: float = 0.0
    """Least probability of a token that is kept, as a share of the most probable's; 0
    keeps all. The cuts follow one another: top-k, top-p, min-p."""
    stop_tokens: tuple[int, ...] = ()
    """Tokens that end a row; the stop token itself belongs to the row."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            max_new_tokens=Whole(1),
            top_p=TOP_P,
            top_k=Whole(0),
            min_p=MIN_P,
            stop_tokens=TupleOf(Whole(0)),
        )
        require(
            "SamplingConfig.temperature",
            self.temperature,
            TEMPERATURE,
            remedy=GREEDY,
        )


@dataclass(frozen=True, kw_only=True)
class SlotsConfig:
    """Slots, and the pages that they share; all devices together."""

    longest: int
    """Tokens of the longest prompt with its completion."""
    slots: int = 64
    """Sequences that are decoded together."""
    page: int = 64
    """Tokens of a page, a power of two: prompts are computed and shared by whole pages.
    """
    capacity: int | None = None
    """Tokens whose keys and values are held; by default as many whole pages as all
    slots can need. Less is enough where few get long: a row that finds no room waits,
    and goes on later."""
    steps: int = 32
    """Most tokens of each slot between two looks of the host."""
    blocks: int = 8
    """Most pages of prompts that a part of the mesh computes at once, a power of two;
    each power up to it is a program."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            longest=Whole(2, INT32_MAX),
            slots=Whole(1),
            page=Whole(2),
            steps=Whole(1),
            blocks=Whole(1),
        )
        if self.capacity is not None:
            require_fields(self, capacity=Whole(1, INT32_MAX))
        for name in ("page", "blocks"):
            value = getattr(self, name)
            if value & (value - 1):
                raise ConfigError(
                    f"expected SlotsConfig.{name} to be a power of two, got {value}"
                )

    @property
    def columns(self) -> int:
        """Pages of the longest row."""
        return -(-self.longest // self.page)

    def pages(self, parts: int) -> int:
        """Pages of each part of a mesh's batch, the first of which is nobody's.

        Args:
          parts: of the batch, as many slots in each.
        """
        capacity = self.capacity or self.slots * self.columns * self.page
        return 1 + -(-capacity // (parts * self.page))
