"""Servers that others run: their addresses, our keys, and what they say of errors."""

import os
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fdjax.encoding import decode
from fdjax.errors import ConfigError
from fdjax.jsonl import shorten

if TYPE_CHECKING:
    import httpx

__all__ = [
    "BUSY",
    "LARGEST_ANSWER",
    "NO_SECRET",
    "bound_answer",
    "explanation",
    "redacted",
    "require_address",
    "retry_after_s",
    "secret_of",
]

BUSY = (408, 409, 425)
"""Statuses below 500 that the same request may not meet again."""
NO_SECRET = "none"
"""What is sent as a key where none is needed."""
LARGEST_ANSWER = 64 << 20
"""Bytes of an answer, as they are sent; 100,000 tokens with their log-probabilities
are fewer."""
_HIDDEN = "[key]"


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
            "set it, or name another variable in `key_env` (an empty name for a server "
            "that asks for no key)"
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


def redacted(text: str, secret: str) -> str:
    """A text without the key, also where a server repeats but a part of it."""
    text = text.replace(secret, _HIDDEN) if secret != NO_SECRET else text
    return re.sub(r"\bsk-[\w*-]+", _HIDDEN, text)


def explanation(body: bytes) -> tuple[str, str]:
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


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """`Retry-After`, in seconds or as a date, or its form in milliseconds.

    Args:
      headers: names in lower case.
    """
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


async def bound_answer(answer: "httpx.Response") -> None:
    """Hook of an httpx client: an answer past `LARGEST_ANSWER` is broken off.

    Whoever reads it meets an `httpx.RemoteProtocolError`, as with any broken answer.
    """
    # SDKs may have a fork of httpx, which takes streams of its own alone.
    library: Any = import_module(type(answer).__module__.partition(".")[0])
    whole: Any = answer.stream

    class Bounded(library.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            read = 0
            async for part in whole:
                read += len(part)
                if read > LARGEST_ANSWER:
                    raise library.RemoteProtocolError(
                        f"expected an answer of at most {LARGEST_ANSWER} bytes, got "
                        "more",
                        request=answer.request,
                    )
                yield part

        async def aclose(self) -> None:
            await whole.aclose()

    answer.stream = Bounded()
