"""Requests to a Kimina server that survive a busy or failing one."""

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from fdjax.errors import BackendError, InstallError
from fdjax.lean.backend import WorkerDiedError

try:
    import httpx
    import tenacity
except ImportError as error:
    raise InstallError(
        "The client of a Kimina server needs the packages httpx and tenacity, and "
        f"{error.name} is missing; run `pip install fdjax[kimina]`."
    ) from error

__all__ = ["Answer", "KiminaConnection", "Patience", "SnippetTimeoutError"]

RETRIED = frozenset({408, 425, 429, 499, 500, 502, 503, 504})
"""Statuses that say nothing about the request: the same one may succeed later."""
BUSY = frozenset({429, 503})
"""Those of a server that has no room now."""
CONNECT_S = 10.0
HEALTH_S = 30.0
BACK_OFF = tenacity.wait_fixed(0.2) + tenacity.wait_random_exponential(0.5, max=30.0)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try."""

    queue_s: float = 120.0
    """Longest wait for a free process on the server, in seconds."""
    failures: int = 3
    """Attempts that may fail before a request is given up; those that a busy server
    (429, 503) refuses do not count."""
    busy_s: float = 600.0
    """Longest time to ask a busy server again, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What Lean said about a snippet."""

    reply: dict[str, Any]
    """As the REPL says it: `env` and `messages`, or `message`."""
    seconds: float
    """What the snippet took on the server after its imports, in seconds."""


class SnippetTimeoutError(Exception):
    """The server ended a snippet because of the time limit."""


class _TryAgainError(Exception):
    """The server did not take the request."""

    def __init__(
        self,
        what: str,
        *,
        busy: bool = False,
        absent: bool = False,
        pause_s: float = 0.0,
    ) -> None:
        super().__init__(what)
        self.busy = busy
        self.innocent = busy or absent
        self.pause_s = pause_s


class KiminaConnection:
    """A kept-alive connection to one server; made and used in one event loop."""

    def __init__(self, url: str, token: str | None, patience: Patience) -> None:
        """Prepare; the first request connects."""
        self._url = url
        self._patience = patience
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.AsyncClient(headers=headers)

    async def health(self) -> None:
        """Ask whether the server is well.

        Raises:
          BackendError: the server refuses the request.
          WorkerDiedError: there is none, or it is not well.
        """
        await self._send("GET", "/health", None, HEALTH_S)

    async def check(self, code: str, limit_s: int) -> Answer:
        """Have one snippet elaborated.

        Args:
          code: imports first.
          limit_s: the server's limit on the imports, and on what follows them.

        Raises:
          SnippetTimeoutError: what follows the imports took longer.
          BackendError: the server refuses the request.
          WorkerDiedError: no usable answer, after retries.
        """
        name = secrets.token_hex(8)
        body = {
            "snippets": [{"id": name, "code": code}],
            "timeout": limit_s,
            "reuse": True,
        }
        patience_s = 2 * limit_s + self._patience.queue_s
        begin = time.monotonic()
        answer = await self._send("POST", "/api/check", body, patience_s)
        try:
            [result] = answer["results"]
            if result["id"] != name:
                raise ValueError(name)
            problem = result.get("error")
            if not problem:
                return Answer(
                    reply=dict(result["response"]),
                    seconds=float(result.get("time", time.monotonic() - begin)),
                )
        except (KeyError, TypeError, ValueError):
            raise WorkerDiedError(
                f"{self._url}: expected the answer to one snippet, got "
                f"{str(answer)[:500]}"
            ) from None
        if "timed out" in problem and "header" not in problem:
            raise SnippetTimeoutError(problem)
        raise WorkerDiedError(f"{self._url}: {problem[:500]}")

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None, patience_s: float
    ) -> Any:
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_TryAgainError),
            wait=_pause,
            stop=self._gives_up,
            reraise=True,
        )
        try:
            response = await retrying(self._send_once, method, path, body, patience_s)
        except _TryAgainError as error:
            raise WorkerDiedError(
                f"{self._url}{path}: {error}", innocent=error.innocent
            ) from error
        try:
            return response.json()
        except ValueError:
            raise WorkerDiedError(
                f"{self._url}{path}: expected JSON, got {response.text[:200]!r}"
            ) from None

    async def _send_once(
        self, method: str, path: str, body: dict[str, Any] | None, patience_s: float
    ) -> httpx.Response:
        timeout = httpx.Timeout(patience_s, connect=CONNECT_S)
        try:
            response = await self._client.request(
                method, self._url + path, json=body, timeout=timeout
            )
        except httpx.TransportError as error:
            absent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
            what = f"{type(error).__name__} {error}".strip()
            raise _TryAgainError(what, absent=absent) from error
        status = response.status_code
        if status in RETRIED:
            raise _TryAgainError(
                f"status {status} {response.text[:200]}",
                busy=status in BUSY,
                pause_s=_retry_after_s(response),
            )
        if status != httpx.codes.OK:
            remedy = "the address is not a Kimina server's, version 2"
            if status in (401, 403):
                remedy = "pass the server's token as token="
            raise BackendError(
                f"KiminaBackend: expected {self._url}{path} to answer, got status "
                f"{status} {response.text[:200]}; {remedy}."
            )
        return response

    def _gives_up(self, state: tenacity.RetryCallState) -> bool:
        if (state.seconds_since_start or 0.0) > self._patience.busy_s:
            return True
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _TryAgainError) and error.busy:
            return False
        return state.attempt_number >= self._patience.failures


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds until the next attempt: jittered, and no less than the server asks."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.pause_s if isinstance(error, _TryAgainError) else 0.0
    return max(asked, BACK_OFF(state))


def _retry_after_s(response: httpx.Response) -> float:
    """The `Retry-After` header, a number or a date, in seconds; 0 without one."""
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
