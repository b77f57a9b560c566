"""JSON over HTTP with retries, as the backends that ask a server need it."""

import asyncio
import logging
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, TypeVar

from fdjax.errors import BackendError, InstallError
from fdjax.lean.backend import WorkerDiedError

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

__all__ = ["JsonClient"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

TRANSIENT = frozenset({429, 500, 502, 503, 504})
"""Statuses that another attempt may mend."""
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
        timeout_s: float = 600.0,
        patience_s: float = 120.0,
    ) -> None:
        """Prepare; connections are made when needed.

        Args:
          url: the server's address, such as `http://127.0.0.1:8000`.
          token: sent as `Authorization: Bearer …`.
          timeout_s: longest wait for one answer, in seconds.
          patience_s: how long failed attempts are repeated, in seconds; what the
            server's `Retry-After` asks for counts.

        Raises:
          InstallError: the packages for it are missing.
        """
        try:
            import httpx
            import tenacity  # noqa: F401 - used by `_retry`
        except ImportError as error:
            raise InstallError(
                f"Asking a server needs the package {error.name}, which is missing; "
                "run `pip install fdjax[serve]`."
            ) from error
        self.url = url.rstrip("/")
        """The server's address."""
        self._patience_s = patience_s
        self._settings = {
            "base_url": self.url,
            "headers": {"Authorization": f"Bearer {token}"} if token else {},
            "timeout": httpx.Timeout(timeout_s, connect=10.0),
        }
        self._lock = threading.Lock()
        self._running: Future[Any] | None = None
        self._client: httpx.AsyncClient | None = None
        # The loop runs in a thread of its own: a request can be cancelled from outside,
        # and callers may be in a running loop themselves.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def get(self, path: str) -> Any:
        """The JSON value at `path`; raises as `post` does."""
        return self._run(self._retry("GET", path, None))

    def post(self, path: str, body: Any) -> Any:
        """Send a JSON value, return the JSON answer.

        Attempts that fail for the moment (429, 5xx, no connection) are repeated with
        growing pauses, at least as long as the server's `Retry-After`.

        Raises:
          BackendError: the server refuses the request (401, 404, 422, …).
          WorkerDiedError: the patience is used up, or `interrupt` was called.
        """
        return self._run(self._retry("POST", path, body))

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

    def _run(self, request: Coroutine[Any, Any, _T]) -> _T:
        with self._lock:
            if self._loop is None:
                self._loop = self._open()
            running = asyncio.run_coroutine_threadsafe(request, self._loop)
            self._running = running
        try:
            return running.result()
        except CancelledError:
            raise WorkerDiedError(
                f"the request to {self.url} was interrupted"
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

    async def _retry(self, method: str, path: str, body: Any) -> Any:
        import tenacity

        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_TransientError),
            wait=_pause,
            stop=tenacity.stop_before_delay(self._patience_s),
            before_sleep=tenacity.before_sleep_log(_log, logging.WARNING),
        )
        try:
            return await attempts(self._send, method, path, body)
        except tenacity.RetryError as error:
            tries = error.last_attempt.attempt_number
            raise WorkerDiedError(
                f"{self.url}{path} gave no answer in {tries} attempts: "
                f"{error.last_attempt.exception()}"
            ) from error

    async def _send(self, method: str, path: str, body: Any) -> Any:
        import httpx

        if self._client is None:
            self._client = httpx.AsyncClient(**self._settings)
        try:
            answer = await self._client.request(method, path, json=body)
        except httpx.TransportError as error:
            raise _TransientError(f"{type(error).__name__} {error}".rstrip()) from error
        if answer.status_code in TRANSIENT:
            raise _TransientError(_described(answer), _retry_after(answer))
        if answer.is_success:
            try:
                return answer.json()
            except ValueError:
                pass  # as bad as a refusal
        remedy = _REMEDIES.get(answer.status_code, "check the address")
        raise BackendError(
            f"{self.url}{path}: expected a JSON answer, got {_described(answer)}; "
            f"{remedy}."
        )


class _TransientError(Exception):
    """An attempt failed in a way that another one may not."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


def _pause(state: "RetryCallState") -> float:
    import tenacity

    grown = tenacity.wait_random_exponential(multiplier=0.25, max=LONGEST_PAUSE_S)
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, _TransientError) else 0.0
    return max(grown(state), asked)


def _retry_after(answer: "httpx.Response") -> float:
    """Seconds the server asks to wait; 0 where it names none (or a date)."""
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def _described(answer: "httpx.Response") -> str:
    return f"{answer.status_code} {answer.reason_phrase}: {answer.text[:500]}"
