"""A model behind somebody's API: one request, one reply or one error."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fdjax.encoding import decode
from fdjax.errors import ConfigError
from fdjax.feedback.chat.chat import Finish, Question
from fdjax.feedback.failure import Kind
from fdjax.http import BUSY, explanation, redacted, retry_after_s
from fdjax.jsonl import shorten

__all__ = [
    "Completion",
    "Connection",
    "Endpoint",
    "RequestError",
    "json_answer",
    "malformed",
    "reported",
    "require_parameters",
    "status_error",
]


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What came back from one request."""

    text: str
    """The model's answer."""
    finish: Finish
    """How it ended."""
    input_tokens: int | None
    """As the server counts; None where it does not say."""
    output_tokens: int | None
    """As the server counts; None where it does not say."""


class Connection(Protocol):
    """An open client of an API; used on one event loop."""

    async def send(self, question: Question, timeout_s: float) -> Completion:
        """Ask once, without retries.

        Args:
          question: what to ask.
          timeout_s: longest wait for any part of the answer, in seconds.

        Raises:
          RequestError: there is no usable answer.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class Endpoint(Protocol):
    """Where a model is served and how it is asked; configuration alone."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """API, model and parameters (`Chat.identity`)."""
        ...

    def connect(self) -> Connection:
        """A client; nothing is sent yet.

        Raises:
          ConfigError: the key's environment variable is not set.
          InstallError: the SDK is missing.
        """
        ...


class RequestError(Exception):
    """A request without a usable answer."""

    def __init__(
        self,
        kind: Kind,
        text: str,
        *,
        retry_after_s: float | None = None,
        final: bool = False,
    ) -> None:
        """Remember what went wrong.

        Args:
          kind: kind of the failure.
          text: what happened, for people.
          retry_after_s: how long the server asks to wait; None where it does not say.
          final: whether asking again is of no use, whatever the kind says.
        """
        super().__init__(text)
        self.kind = kind
        self.retry_after_s = retry_after_s
        self.transient = kind.transient and not final


def require_parameters(parameters: Mapping[str, Any], reserved: set[str]) -> None:
    """Refuses parameters of a request that have a field of their own, or are no JSON.

    Raises:
      ConfigError: with the names of the first.
    """
    twice = sorted(reserved & parameters.keys())
    if twice:
        raise ConfigError(
            f"expected `parameters` without {', '.join(twice)}, got them twice: the "
            "endpoint's own fields set them"
        )
    try:
        json.dumps(dict(parameters), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"expected `parameters` that JSON can hold, got {error}: use numbers, "
            "texts, booleans, lists and dicts"
        ) from error


def status_error(
    status: int, headers: Mapping[str, str], body: bytes, *, secret: str
) -> RequestError:
    """The error that an HTTP status stands for.

    Args:
      status: 400 or above.
      headers: of the answer; names in lower case.
      body: of the answer.
      secret: the key, which a server may repeat.
    """
    said, code = explanation(body)
    what = f"{status} {redacted(said, secret)}".rstrip()
    # A 429 may also say that there is no money left, rather than no room.
    if status in (401, 402, 403) or code == "insufficient_quota":
        return RequestError(Kind.DENIED, what)
    if status == 429:
        kind = Kind.RATE_LIMIT
    elif status >= 500 or status in BUSY:
        kind = Kind.SERVER
    else:
        kind = Kind.INVALID
    return RequestError(
        kind,
        what,
        retry_after_s=retry_after_s(headers),
        final=headers.get("x-should-retry") == "false",
    )


def json_answer(content_type: str, body: bytes) -> Mapping[str, Any]:
    """The JSON object that a server answered with success.

    Raises:
      RequestError: it is of another type, broken, or no object.
    """
    kind = content_type.partition(";")[0].strip().lower()
    shown = shorten(body.decode(errors="replace").strip())
    if kind != "application/json" and not kind.endswith("+json"):
        raise RequestError(
            Kind.CONTENT_TYPE,
            f"expected application/json, got {kind or 'no content type'}: {shown}",
        )
    try:
        value = decode(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(
            Kind.MALFORMED, f"expected JSON, got {shown!r} ({error})"
        ) from error
    if not isinstance(value, dict):
        raise malformed("an object", value)
    return value


def malformed(expected: str, got: Any) -> RequestError:
    """The error for JSON of another shape."""
    return RequestError(
        Kind.MALFORMED, f"expected {expected}, got {shorten(repr(got))}"
    )


def reported(usage: Any, key: str) -> int | None:
    """A count of tokens in a reply's `usage`; None where the server reports none."""
    count = usage.get(key) if isinstance(usage, dict) else None
    is_count = isinstance(count, int) and not isinstance(count, bool) and count >= 0
    return count if is_count else None
