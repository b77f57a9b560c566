"""What servers differ in: how they are asked, answer, and load weights."""

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from fdjax.jsonl import shorten
from fdjax.sampling.server.connection import Connection, RequestError

__all__ = [
    "Asked",
    "Dialect",
    "Finish",
    "Reply",
    "Served",
    "broken",
    "checked",
    "finish_of",
    "require_model",
]

Finish = Literal["stop", "length"]
"""How a sample ended: by a stop token, or by its budget."""

_LEAST = -9000.0
"""Servers write -9999 for a log-probability of minus infinity, which none can draw."""
_ROUNDING = 1e-3


@dataclass(frozen=True, kw_only=True)
class Served:
    """Weights that were exported, as the server knows them."""

    path: str
    """The server's name of their folder."""
    mark: str
    """What the server is told that they are; no others have it."""
    version: int


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which tokens a server is asked for."""

    prompt: list[int]
    budget: int
    """Tokens after which it ends unfinished."""
    temperature: float
    stops: frozenset[int]
    """Tokens that end it; without any, only its budget does."""
    seed: int | None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a server answered."""

    tokens: list[int]
    logprobs: list[float]
    finish: Finish
    """By the server's account."""
    mark: str | None = None
    """Of the weights, where each reply says so."""


class Dialect(Protocol):
    """The API of a server."""

    def request(self, asked: Asked) -> tuple[str, dict[str, Any]]:
        """Where to send what."""
        ...

    def read(self, body: Any, asked: Asked) -> Reply:
        """What an answer says.

        Raises:
          RequestError: it is of another shape, or of another model.
        """
        ...

    async def load(
        self, connection: Connection, served: Served, timeout_s: float
    ) -> None:
        """Has weights loaded from their folder.

        Raises:
          RequestError: the server does not say that it did.
        """
        ...

    async def holds(self, connection: Connection, served: Served) -> bool | None:
        """Whether the server says that it has these weights; None where it cannot say.

        Raises:
          RequestError: it does not answer, or serves another model.
        """
        ...


def broken(expected: str, got: Any) -> RequestError:
    """The error for JSON of another shape."""
    return RequestError(f"{shorten(repr(got))} instead of {expected}")


def finish_of(kind: Any, said: Any) -> Finish:
    """How an answer ended.

    Args:
      kind: by the server's account.
      said: all that it says of it.

    Raises:
      RequestError: neither by itself nor at its budget.
    """
    if kind == "stop" or kind == "length":
        return kind
    raise RequestError(f"an end by {shorten(repr(said))}")


async def require_model(connection: Connection, model: str) -> dict[str, Any]:
    """What a server says of the model.

    Raises:
      RequestError: it does not answer, or serves another model.
    """
    body = await connection.get("/v1/models")
    cards = body.get("data") if isinstance(body, dict) else None
    if not isinstance(cards, list) or not all(isinstance(card, dict) for card in cards):
        raise broken("a list of models", body)
    for card in cards:
        if card.get("id") == model:
            return card
    names = [card.get("id") for card in cards]
    raise RequestError(
        f"the models {names} instead of {model!r} (ServerConfig.model)", final=True
    )


def checked(reply: Reply, asked: Asked, vocabulary: int) -> Finish:
    """How it ended, once everything in it is as it must be.

    Raises:
      RequestError: something is not.
    """
    tokens, logprobs = reply.tokens, reply.logprobs
    if not _all(tokens, int) or not _all(logprobs, int | float):
        raise broken("numbers as tokens and log-probabilities", (tokens, logprobs))
    if len(logprobs) != len(tokens):
        raise broken(f"{len(tokens)} log-probabilities", len(logprobs))
    if not 0 < len(tokens) <= asked.budget:
        raise broken(f"1 to {asked.budget} tokens", len(tokens))
    if beyond := [token for token in tokens if not 0 <= token < vocabulary]:
        raise broken(f"tokens from 0 to {vocabulary - 1}", beyond)
    if wrong := [each for each in logprobs if not _LEAST < each <= _ROUNDING]:
        raise broken("log-probabilities", wrong)
    if early := asked.stops.intersection(tokens[:-1]):
        raise broken("the first stop token at the end", early)
    if tokens[-1] in asked.stops:
        return "stop"
    if len(tokens) == asked.budget or reply.finish == "length":
        return "length"
    raise RequestError(
        f"{tokens[-1]} at the end instead of one of the stop tokens "
        f"{sorted(asked.stops)}: the server leaves them out, or stops at others of its "
        "own, which generation_config.json may name (`--generation-config vllm`)",
        final=True,
    )


def _all(values: Any, kind: Any) -> bool:
    """Whether it is a list of finite numbers of that kind."""
    return isinstance(values, list) and all(
        isinstance(each, kind) and not isinstance(each, bool) and math.isfinite(each)
        for each in values
    )
