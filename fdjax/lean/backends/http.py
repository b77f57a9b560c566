"""JSON over HTTP with patience, as the backends that ask a server need it."""

import asyncio
import logging
import math
import re
import ssl
import threading
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import CancelledError, Future
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from fdjax.errors import BackendError, ConfigError, InstallError
from fdjax.http import bound_answer
from fdjax.lean.facts.backend import WorkerDiedError

if TYPE_CHECKING:
    import httpx
    import tenacity

__all__ = ["JsonClient", "server_address"]

_log = logging.getLogger(__name__)

_Kind = Literal["away", "busy", "failed"]
"""How an attempt failed that another one may mend: nobody was there to take the
request, there was no room for it, or whoever took it did not answer it."""
TRANSIENT: dict[int, _Kind] = {
    429: "busy",
    500: "failed",
    **dict.fromkeys((408, 425, 499, 502, 503, 504), "away"),
}
"""What statuses tell of a failed attempt; most of "away" are a balancer's."""
CONNECT_S = 10.0
GET_S = 30.0
"""Longest wait for an answer about the server itself, in seconds."""
LONGEST_PAUSE_S = 30.0
_REMEDIES = {
    401: "give the server's token",
    403: "give a token that may verify",
    404: "check the address: this server does not have that route",
    413: "send less at once, or raise the server's limit",
    422: "correct the request, or use a server of the same version",
}


class JsonClient:
    """One keep-alive connection to a server; used by one thread at a time.

    `interrupt` alone may be called from another thread. Requests must be safe to
    repeat: whatever a broken connection swallowed is sent again.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        health_path: str = "/health",
        timeout_s: float = 600.0,
        away_s: float = 120.0,
        busy_s: float = 600.0,
        failures: int | None = None,
    ) -> None:
        """Prepare; connections are made when needed.

        Args:
          url: the server's address, such as `http://127.0.0.1:8000`.
          token: sent as `Authorization: Bearer …`.
          health_path: answers with success while the server can work.
          timeout_s: longest wait for the answer to a `post`, in seconds.
          away_s: how long to ask again, from the first failure on, while there is no
            connection or a balancer says so (408, 425, 499, 502, 503, 504).
          busy_s: the same for a server that has no room (429).
          failures: how often the server may fail on a `post` that it took (500, no
            answer), if less than `away_s` allows.

        Raises:
          ConfigError: `url` is no address.
          InstallError: httpx is missing.
        """
        try:
            import httpx
            import tenacity  # noqa: F401 - it will be needed
        except ImportError as error:
            raise InstallError(
                f"Asking a server needs the package {error.name}, which is missing; "
                "run `pip install fdjax[serve]`, or fdjax[kimina] for a Kimina server."
            ) from error
        self.url = server_address(url)
        """The server's address."""
        self._health_path = health_path
        self._timeout_s = timeout_s
        self._patience_s: dict[_Kind, float] = {
            "away": away_s,
            "busy": busy_s,
            "failed": away_s,
        }
        self._failures = failures
        self._settings = {
            "base_url": self.url,
            "headers": {"Authorization": f"Bearer {token}"} if token else {},
            "event_hooks": {"response": [bound_answer]},
        }
        self._lock = threading.Lock()
        self._running: Future[Any] | None = None
        self._client: httpx.AsyncClient | None = None
        # The loop runs in a thread of its own: a request can be cancelled from outside,
        # and callers may be in a running loop themselves.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def get(self, path: str) -> Any:
        """The JSON value at `path`, which tells about the server.

        Raises:
          BackendError: the server refuses, or gives no answer as long as there is
            patience.
          WorkerDiedError: `interrupt` was called.
        """
        try:
            return self._run(self._ask("GET", path, None, GET_S, None))
        except WorkerDiedError as error:
            if error.innocent:
                raise
            raise BackendError(f"{error}; look at the server's log.") from error

    def post(self, path: str, body: Any, *, timeout_s: float | None = None) -> Any:
        """Send a JSON value, return the JSON answer.

        What fails for the moment is repeated with growing pauses, at least as long as
        the server's `Retry-After`.

        Args:
          path: where to.
          body: what to send.
          timeout_s: longest wait for the answer, in seconds; the client's by default.

        Raises:
          BackendError: the server refuses the request (401, 404, 422, …), cannot be
            reached, is busy or unwell.
          WorkerDiedError: the server is well and fails on this request, or `interrupt`
            was called, which is innocent.
        """
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            return self._run(self._ask("POST", path, body, limit_s, self._failures))
        except WorkerDiedError as error:
            if not error.innocent:
                # A server that is unwell is the fault of no request.
                self.get(self._health_path)
            raise

    def interrupt(self) -> None:
        """Make a running request end with `WorkerDiedError`."""
        with self._lock:
            if self._running is not None:
                self._running.cancel()

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()

    def _run(self, request: Coroutine[Any, Any, Any]) -> Any:
        with self._lock:
            if self._loop is None:
                self._loop = self._open()
            running = asyncio.run_coroutine_threadsafe(request, self._loop)
            self._running = running
        try:
            return running.result()
        except CancelledError:
            raise WorkerDiedError(
                f"the request to {self.url} was interrupted", innocent=True
            ) from None
        finally:
            running.cancel()  # after Ctrl-C it may still be under way
            with self._lock:
                self._running = None

    def _open(self) -> asyncio.AbstractEventLoop:
        opened: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(
            target=self._serve, args=(opened,), name="lean-http", daemon=True
        )
        self._thread.start()
        return opened.result()

    def _serve(self, opened: "Future[asyncio.AbstractEventLoop]") -> None:
        with asyncio.Runner() as runner:
            opened.set_result(runner.get_loop())
            runner.get_loop().run_forever()
            client, self._client = self._client, None
            if client is not None:
                runner.run(client.aclose())

    async def _ask(
        self, method: str, path: str, body: Any, limit_s: float, failures: int | None
    ) -> Any:
        """Send until there is an answer or the patience is used up."""
        import tenacity

        patience = _Patience(self._patience_s, failures)
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_TransientError),
            wait=patience.pause_s,
            stop=patience.is_used_up,
            before_sleep=self._tell,
        )
        try:
            return await retrying(self._send, method, path, body, limit_s)
        except tenacity.RetryError as given_up:
            last = given_up.last_attempt
            error = last.exception()
            assert isinstance(error, _TransientError)
            raise self._given_up(path, error, last.attempt_number) from error

    def _tell(self, state: "tenacity.RetryCallState") -> None:
        _log.warning(
            "%s gave no answer (%s) and is asked again in %.1f s",
            self.url,
            _failure(state),
            state.upcoming_sleep,
        )

    def _given_up(
        self, path: str, error: "_TransientError", attempts: int
    ) -> BackendError:
        what = (
            f"{self.url}{path}: expected an answer, got none in {attempts} attempts, "
            f"at last {error}"
        )
        if error.kind == "failed":
            return WorkerDiedError(what)
        if error.kind == "busy":
            return BackendError(f"{what}; use fewer workers, or a larger server.")
        return BackendError(f"{what}; start the server, or correct the address.")

    async def _send(self, method: str, path: str, body: Any, limit_s: float) -> Any:
        import httpx

        if self._client is None:
            self._client = httpx.AsyncClient(**self._settings)
        timeout = httpx.Timeout(limit_s, connect=CONNECT_S)
        try:
            answer = await self._client.request(
                method, path, json=body, timeout=timeout
            )
        except httpx.RequestError as error:
            what = f"{type(error).__name__} {error}".rstrip()
            if isinstance(error, httpx.LocalProtocolError) or _is_tls_refusal(error):
                raise BackendError(
                    f"{self.url}: expected a connection, got {what}; correct the "
                    "address, its http or https, the token or the certificates."
                ) from error
            connecting = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
            kind = "away" if isinstance(error, connecting) else "failed"
            raise _TransientError(what, kind) from error
        return self._read(path, answer)

    def _read(self, path: str, answer: "httpx.Response") -> Any:
        status = answer.status_code
        what = f"{status} {answer.reason_phrase}: {answer.text[:500]}"
        if status in TRANSIENT:
            raise _TransientError(what, TRANSIENT[status], _retry_after_s(answer))
        what = f"{self.url}{path}: expected a JSON answer, got {what}"
        if not answer.is_success:
            remedy = _REMEDIES.get(status, "check the address")
            raise BackendError(f"{what}; {remedy}.")
        try:
            return answer.json()
        except ValueError:
            raise WorkerDiedError(what) from None


class _TransientError(Exception):
    """An attempt failed in a way that another one may not."""

    def __init__(self, what: str, kind: _Kind, retry_after_s: float = 0.0) -> None:
        super().__init__(what)
        self.kind: _Kind = kind
        self.retry_after_s = retry_after_s


class _Patience:
    """How long one request is sent again; counts from its first failure."""

    def __init__(self, patience_s: Mapping[_Kind, float], failures: int | None) -> None:
        import tenacity

        self._patience_s = patience_s
        self._failures = failures
        self._since_s: float | None = None
        self._failed = 0
        self._left_s = math.inf
        # Not in step with the other workers, which met the same failure.
        self._back_off = tenacity.wait_fixed(0.1) + tenacity.wait_random_exponential(
            0.25, max=LONGEST_PAUSE_S
        )

    def pause_s(self, state: "tenacity.RetryCallState") -> float:
        """How long to wait after a failure."""
        error, now_s = _failure(state), time.monotonic()
        if self._since_s is None:
            self._since_s = now_s
        self._failed += error.kind == "failed"
        self._left_s = self._since_s + self._patience_s[error.kind] - now_s
        return max(error.retry_after_s, min(self._back_off(state), self._left_s))

    def is_used_up(self, state: "tenacity.RetryCallState") -> bool:
        """Whether that was the last attempt; asked after `pause_s`."""
        used_up = self._left_s <= _failure(state).retry_after_s
        return used_up or self._failed == self._failures


def _failure(state: "tenacity.RetryCallState") -> _TransientError:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, _TransientError)
    return error


def server_address(url: str) -> str:
    """`url` without a slash at its end.

    Raises:
      ConfigError: it is no address of a server, or holds a name and a password.
    """
    if "@" in url:
        raise ConfigError(
            "expected a server's address without a name and a password, which would be "
            "written with the configuration and into logs: put a token into the "
            "environment variable that `token_env` names"
        )
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # no number for a port, no end of a bracket
        valid = False
    if not valid or re.search(r"[\s?#]", url):
        raise ConfigError(
            f"Expected a server's address, http(s)://host[:port], got {url!r}; correct "
            "the address."
        )
    return url.rstrip("/")


def _is_tls_refusal(error: BaseException | None) -> bool:
    """Whether the two sides will never agree: no TLS over there, a certificate."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    # A connection that ends in the middle is that of a server that ends.
    return error is not None and not isinstance(error, ssl.SSLEOFError)


def _retry_after_s(answer: "httpx.Response") -> float:
    """The `Retry-After` header, a number or a date, in seconds; 0 without one."""
    value = answer.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
