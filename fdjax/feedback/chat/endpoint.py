"""A model behind somebody's API: one request, one reply or one error."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from fdjax.encoding import decode
from fdjax.errors import ConfigError
from fdjax.feedback.chat.chat import Finish, Question
from fdjax.feedback.failure import Kind
from fdjax.jsonl import shorten

__all__ = [
    "Completion",
    "Connection",
    "Endpoint",
    "RequestError",
    "json_answer",
    "malformed",
    "redacted",
    "reported",
    "require_address",
    "require_parameters",
    "secret_of",
    "status_error",
]

_BUSY = (408, 409, 425)
"""Statuses below 500 that the same request may not meet again."""
NO_SECRET = "none"
"""What is sent as a key where none is needed."""
_HIDDEN = "[key]"


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


def secret_of(variable: str) -> str:
    """The key in an environment variable; a placeholder where no key is needed.

    Args:
      variable: its name; empty for a server that asks for no key.

    Raises:
      ConfigError: it is not set.
    """
    if not variable:
        return NO_SECRET
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise ConfigError(
            f"expected an API key in the environment variable {variable}, got nothing: "
            "set it, name another variable in `key_env` (an empty name for a server "
            "that asks for no key), or replay a recording"
        )
    return secret


def require_address(url: str) -> None:
    """Refuses what is no address of a server, or may hold a secret.

    Raises:
      ConfigError: with the address, unless it may hold one.
    """
    if set(url) & set("@?#"):
        raise ConfigError(
            "expected `base_url` without a name and a password, and without a query, "
            "which would be written with the configuration: put the key into the "
            "variable of `key_env`"
        )
    try:
        parts = urlsplit(url)
    except ValueError:  # no end of a bracket
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"expected `base_url` as http(s)://host[:port][/path], got {url!r}: "
            "correct the address"
        )


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
    said, code = _explanation(body)
    what = f"{status} {redacted(said, secret)}".rstrip()
    # A 429 may also say that there is no money left, rather than no room.
    if status in (401, 402, 403) or code == "insufficient_quota":
        return RequestError(Kind.DENIED, what)
    if status == 429:
        kind = Kind.RATE_LIMIT
    elif status >= 500 or status in _BUSY:
        kind = Kind.SERVER
    else:
        kind = Kind.INVALID
    return RequestError(
        kind,
        what,
        retry_after_s=_retry_after_s(headers),
        final=headers.get("x-should-retry") == "false",
    )


def redacted(text: str, secret: str) -> str:
    """A text without the key, also where a server repeats but a part of it."""
    text = text.replace(secret, _HIDDEN) if secret != NO_SECRET else text
    return re.sub(r"\bsk-[\w*-]+", _HIDDEN, text)


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


def _explanation(body: bytes) -> tuple[str, str]:
    """What a server says of an error, and its code for it; perhaps empty."""
    text = body.decode(errors="replace").strip()
    try:
        value = decode(text)
    except (ValueError, RecursionError):
        return shorten(text), ""
    error = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        return shorten(str(error)), ""
    said = error.get("message", error.get("detail", text))
    return shorten(str(said)), str(error.get("code", ""))


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """`Retry-After`, in seconds or as a date, or its form in milliseconds."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        moment = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
