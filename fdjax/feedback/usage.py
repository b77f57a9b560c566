"""What feedback costs: requests, tokens, money, and the limits on them."""

from dataclasses import dataclass, fields

from fdjax.errors import ConfigError
from fdjax.ranges import Number, Whole, require, require_fields

__all__ = ["Budget", "Prices", "Usage"]


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What was used; sums of it add up."""

    requests: int = 0
    """Requests sent, those that failed and were sent again included."""
    retries: int = 0
    """Requests sent again after a failure; a part of `requests`."""
    input_tokens: int = 0
    """As the server counts them."""
    output_tokens: int = 0
    """As the server counts them, hidden reasoning included."""
    cost_usd: float = 0.0
    """US dollars at `Prices`; 0 without them."""
    estimated: int = 0
    """Answers whose tokens were estimated, because the server did not report them."""
    recorded: int = 0
    """Answers that were read from a recording and cost nothing."""
    cut_characters: int = 0
    """Characters of theorems, attempts and messages that questions left out."""

    @property
    def tokens(self) -> int:
        """Tokens of input and output."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            **{
                field.name: getattr(self, field.name) + getattr(other, field.name)
                for field in fields(self)
            }
        )


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What a model costs, in US dollars for 10^6 tokens; from its price list.

    Discounts, as for input that a provider has cached, are not deducted.
    """

    input: float
    output: float

    def __post_init__(self) -> None:
        require_fields(self, input=Number(least=0), output=Number(least=0))

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float:
        """The price of a request, in US dollars."""
        return (self.input * input_tokens + self.output * output_tokens) / 1e6


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much one process may spend; None is no limit.

    No request starts once a limit is reached. Those under way end, so the excess is at
    most what `Limits.concurrency` requests cost.
    """

    tokens: int | None = None
    """Tokens of input and output."""
    cost_usd: float | None = None
    """US dollars; needs `Prices`."""

    def __post_init__(self) -> None:
        if self.tokens is not None:
            require("Budget.tokens", self.tokens, Whole(1))
        if self.cost_usd is not None:
            require("Budget.cost_usd", self.cost_usd, Number(above=0))

    def require_prices(self, prices: Prices | None) -> None:
        """Refuses a limit on money where nothing is known to cost any.

        Raises:
          ConfigError: there are no prices, or they are zero.
        """
        priceless = prices is None or not (prices.input or prices.output)
        if self.cost_usd is not None and priceless:
            raise ConfigError(
                "expected Prices with Budget.cost_usd, got none: without a price the "
                "budget would never be used up; give the model's prices"
            )

    def spent(self, used: Usage) -> str:
        """Which limit is reached, in words; empty for none."""
        if self.tokens is not None and used.tokens >= self.tokens:
            return f"{used.tokens:,} of {self.tokens:,} tokens are used"
        if self.cost_usd is not None and used.cost_usd >= self.cost_usd:
            return f"{used.cost_usd:,.2f} of {self.cost_usd:,.2f} US dollars are spent"
        return ""
