"""What a Kimina server is asked, and what its answers mean."""

import secrets
import time
from dataclasses import dataclass
from typing import Any

from fdjax.lean.backends.http import JsonClient
from fdjax.lean.facts.backend import WorkerDiedError

__all__ = ["Answer", "KiminaServer", "Patience", "SnippetTimeoutError"]

HEALTH_PATH = "/health"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try."""

    queue_s: float = 120.0
    """Longest wait for a free process on the server, in seconds."""
    failures: int = 3
    """How often the server may fail on one proof (500, no answer) before that proof is
    given up."""
    away_s: float = 120.0
    """How long to ask a server again that cannot be reached, or of which a balancer
    says so (502, 503, 504), in seconds."""
    busy_s: float = 600.0
    """How long to ask a server again that has no room (429), in seconds."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What Lean said about a snippet."""

    reply: dict[str, Any]
    """As the REPL says it: `env` and `messages`, or `message`."""
    seconds: float
    """What the snippet took on the server after its imports, in seconds."""


class SnippetTimeoutError(Exception):
    """The server ended a snippet because of the time limit."""


class KiminaServer:
    """One server; used by one thread at a time, `interrupt` by any."""

    def __init__(self, url: str, token: str | None, patience: Patience) -> None:
        """Prepare; the first request connects."""
        self._queue_s = patience.queue_s
        self._client = JsonClient(
            url,
            token=token,
            health_path=HEALTH_PATH,
            away_s=patience.away_s,
            busy_s=patience.busy_s,
            failures=patience.failures,
        )
        self.url = self._client.url
        """The server's address."""

    def require_health(self) -> None:
        """Ask whether the server is well.

        Raises:
          BackendError: there is none, it is not well or refuses the request.
        """
        self._client.get(HEALTH_PATH)

    def check(self, code: str, limit_s: int) -> Answer:
        """Have one snippet elaborated.

        Args:
          code: imports first.
          limit_s: the server's limit on the imports, and on what follows them.

        Raises:
          SnippetTimeoutError: what follows the imports took longer.
          BackendError: the server refuses the request, is away, busy or unwell.
          WorkerDiedError: no usable answer from a server that is well.
        """
        name = secrets.token_hex(8)
        body = {
            "snippets": [{"id": name, "code": code}],
            "timeout": limit_s,
            "reuse": True,
        }
        begin = time.monotonic()
        answer = self._client.post(
            "/api/check", body, timeout_s=2 * limit_s + self._queue_s
        )
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
                f"{self.url}: expected the answer to one snippet, got "
                f"{str(answer)[:500]}"
            ) from None
        if "timed out" in problem and "header" not in problem:
            raise SnippetTimeoutError(problem)
        raise WorkerDiedError(f"{self.url}: {problem[:500]}")

    def interrupt(self) -> None:
        """Make a running request end with `WorkerDiedError`."""
        self._client.interrupt()

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        self._client.close()
