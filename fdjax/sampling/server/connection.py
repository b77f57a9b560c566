"""One HTTP request to the server: JSON, or an error that says whether to ask again."""

import asyncio
from typing import Any

from fdjax.encoding import decode
from fdjax.errors import InstallError
from fdjax.http import (
    BUSY,
    bound_answer,
    explanation,
    redacted,
    retry_after_s,
    secret_of,
)
from fdjax.jsonl import shorten
from fdjax.sampling.server.config import ServerConfig

__all__ = ["Connection", "RequestError"]

_CONNECT_S = 10.0
_IDLE_S = 2.0
"""Servers close an idle connection after 5 s: none is used that is about to end."""
_GATEWAY = (502, 503, 504)
"""What stands before a server says so when the server is gone."""


class RequestError(Exception):
    """A request without a usable answer."""

    def __init__(
        self,
        text: str,
        *,
        final: bool = False,
        lost: bool = False,
        status: int | None = None,
        pause_s: float = 0.0,
    ) -> None:
        """Remember what went wrong.

        Args:
          text: what happened, for people.
          final: whether asking again is of no use.
          lost: whether the server may have gone, and its weights with it.
          status: of HTTP, where there was one.
          pause_s: how long the server asks to wait.
        """
        super().__init__(text)
        self.final = final
        self.lost = lost
        self.status = status
        self.pause_s = pause_s


class Connection:
    """An open client; used on one event loop."""

    def __init__(self, config: ServerConfig) -> None:
        """Read the key and prepare; the first request connects.

        Raises:
          ConfigError: `key_env` names a variable that is not set.
          InstallError: httpx or tenacity is missing.
        """
        self._secret = secret_of(config.key_env)
        try:
            import httpx
            import tenacity  # noqa: F401 - it will be needed
        except ImportError as error:
            raise InstallError(
                f"Sampling on a server needs the package {error.name}, which is "
                "missing; run `pip install fdjax[sampling-server]`."
            ) from error
        self._client = httpx.AsyncClient(
            base_url=config.base_url,
            headers={"Authorization": f"Bearer {self._secret}"},
            limits=httpx.Limits(keepalive_expiry=_IDLE_S),
            event_hooks={"response": [bound_answer]},
        )

    async def get(self, path: str, *, timeout_s: float = 60.0) -> Any:
        """The JSON value at `path`.

        Raises:
          RequestError: there is none.
        """
        return await self._ask("GET", path, None, timeout_s)

    async def post(self, path: str, body: Any, *, timeout_s: float) -> Any:
        """What the server answers to a JSON value; None where it says nothing.

        Raises:
          RequestError: it refuses, or its answer cannot be used.
        """
        return await self._ask("POST", path, body, timeout_s)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _ask(self, method: str, path: str, body: Any, timeout_s: float) -> Any:
        import httpx

        limits = httpx.Timeout(timeout_s, connect=_CONNECT_S, pool=None)
        try:
            # httpx's limit is one for each read, and an answer may drip.
            async with asyncio.timeout(timeout_s):
                answer = await self._client.request(
                    method, path, json=body, timeout=limits
                )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._error(f"no connection ({error})", lost=True) from None
        except (TimeoutError, httpx.TimeoutException):
            raise self._error(f"no answer in {timeout_s:g} s") from None
        except httpx.RequestError as error:
            raise self._error(f"a broken answer ({error!r})", lost=True) from None
        status, headers = answer.status_code, answer.headers
        if status >= 300:
            said, _ = explanation(answer.content)
            raise self._error(
                f"{status} {said}".rstrip(),
                final=status < 500 and status not in (429, *BUSY),
                lost=status in _GATEWAY,
                status=status,
                pause_s=retry_after_s(headers) or 0.0,
            )
        try:
            return decode(answer.content) if answer.content else None
        except (ValueError, RecursionError):
            shown = shorten(answer.content.decode(errors="replace"))
            raise self._error(f"no JSON: {shown!r}") from None

    def _error(self, text: str, **kind: Any) -> RequestError:
        return RequestError(redacted(text, self._secret), **kind)
