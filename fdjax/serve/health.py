"""Whether the workers are alive enough to answer."""

import asyncio
import logging
import time
from collections.abc import Callable

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from fdjax.errors import BackendError, InstallError

__all__ = ["Health", "health_routes"]

_log = logging.getLogger(__name__)

PROBE_S = 2.0


class Health:
    """Remembers since when Lean cannot be started, and tries until it can again."""

    def __init__(self, probe: Callable[[], object], unhealthy_after_s: float) -> None:
        """Start out well.

        Args:
          probe: blocks while Lean does something small; raises when it cannot.
          unhealthy_after_s: how long a failure may last before it is one of health.
        """
        self._probe = probe
        self._unhealthy_after_s = unhealthy_after_s
        self._failing_since: float | None = None

    @property
    def ready(self) -> bool:
        """Whether requests can be answered now."""
        return self._failing_since is None

    @property
    def healthy(self) -> bool:
        """Whether there is hope without a restart of the server."""
        since = self._failing_since
        return since is None or time.monotonic() - since < self._unhealthy_after_s

    def failed(self, error: Exception) -> None:
        """Lean could not be started."""
        if self._failing_since is None:
            _log.error("Lean cannot be started: %s", error)
            self._failing_since = time.monotonic()

    def succeeded(self) -> None:
        """Lean answered."""
        self._failing_since = None

    async def recover(self) -> None:
        """Probe while failing: a server that is not ready gets no other requests."""
        while True:
            await asyncio.sleep(PROBE_S)
            if self.ready:
                continue
            try:
                await asyncio.to_thread(self._probe)
            except (BackendError, InstallError) as error:
                _log.debug("Lean still cannot be started: %s", error)
            else:
                self.succeeded()


def health_routes(health: Health) -> APIRouter:
    """`/health`, which is also `/`, for restarts, and `/ready` for load balancers."""
    router = APIRouter(tags=["health"])

    @router.get("/health")
    @router.get("/health/", include_in_schema=False)
    @router.get("/", include_in_schema=False)
    async def get_health() -> JSONResponse:
        return _answer(health.healthy, "ok")

    @router.get("/ready")
    async def get_ready() -> JSONResponse:
        return _answer(health.ready, "ready")

    return router


def _answer(good: bool, word: str) -> JSONResponse:
    return JSONResponse({"status": word if good else "failing"}, 200 if good else 503)
