"""A backend that asks an `fdjax serve` for the facts."""

import importlib.util
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from fdjax.errors import BackendError, InstallError
from fdjax.lean.backends.http import JsonClient
from fdjax.lean.backends.wire import (
    CHECK_PATH,
    IDENTITY_PATH,
    CheckAnswer,
    ServerIdentity,
)
from fdjax.lean.facts.backend import RawReport, Request, WorkerDiedError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["RemoteBackend"]

_T = TypeVar("_T")


class RemoteBackend:
    """Lean behind HTTP: the server observes, this side judges.

    Several replicas may stand behind one address, as long as their identity is the
    same. The server uses its own `Limits.memory_mb`; a request for more time or output
    than it allows is a `BackendError`.

    A server on this machine, asked sixteen proofs at a time:
    `Verifier(lambda: RemoteBackend("http://127.0.0.1:8000"), workers=16)`.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = 600.0,
        patience_s: float = 120.0,
        busy_s: float = 600.0,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
          url: address of the server or of the load balancer before it.
          token: the server's bearer token.
          timeout_s: longest wait for one answer, queueing included, in seconds.
          patience_s: how long a server that is away or unwell is asked again, in
            seconds.
          busy_s: the same for one that has no room.

        Raises:
          ConfigError: `url` is no address.
          InstallError: the packages for it are missing.
        """
        if importlib.util.find_spec("pydantic") is None:
            raise InstallError(
                "RemoteBackend needs the package pydantic, which is missing; run "
                "`pip install fdjax[serve]`."
            )
        self._client = JsonClient(
            url,
            token=token,
            health_path="/ready",
            timeout_s=timeout_s,
            away_s=patience_s,
            busy_s=busy_s,
        )
        self._identity = ""

    @property
    def identity(self) -> str:
        """The identity of the server's backend, asked for at first use.

        Raises:
          BackendError: the server cannot be reached, or refuses.
        """
        if not self._identity:
            self._identity = self._server().identity
        return self._identity

    def start(self) -> None:
        """Ask the server who it is.

        Raises:
          BackendError: it cannot be reached, refuses, or is not who it was.
        """
        self._require(self._server().identity)

    def check(self, request: Request) -> RawReport:
        """Have one request elaborated.

        Raises:
          WorkerDiedError: the checker died on the server, or this request alone gets
            no answer.
          BackendError: the server cannot be reached, has no room, cannot start Lean,
            refuses, or is not who it was.
        """
        values = self._client.post(CHECK_PATH, asdict(request))
        answer = self._read(CheckAnswer, values)
        self._require(answer.identity)
        if answer.report is None:
            raise WorkerDiedError(answer.died)
        return answer.report

    def interrupt(self) -> None:
        """Make a running `check` end soon with `WorkerDiedError`."""
        self._client.interrupt()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _server(self) -> ServerIdentity:
        return self._read(ServerIdentity, self._client.get(IDENTITY_PATH))

    def _require(self, identity: str) -> None:
        if identity != (self._identity or identity):
            raise BackendError(
                f"{self._client.url}: expected answers of {self._identity}, got one of "
                f"{identity}; run the same version in all replicas, and make a new "
                "verifier after an update."
            )
        self._identity = identity

    def _read(self, kind: type[_T], values: Any) -> _T:
        import pydantic

        try:
            return _reader(kind).validate_python(values)
        except pydantic.ValidationError as error:
            raise BackendError(
                f"{self._client.url}: expected the answer of an fdjax serve of this "
                f"version, got {str(values)[:200]} ({error.error_count()} faults); "
                "correct the address, or update one side."
            ) from error


@cache
def _reader(kind: type) -> "TypeAdapter[Any]":
    import pydantic

    return pydantic.TypeAdapter(kind)
