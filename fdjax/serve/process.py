"""One uvicorn in this process, until a signal ends it."""

import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

__all__ = ["run"]

KEEP_ALIVE_S = 75
"""Longer than load balancers keep an idle connection, so that they close it first."""


def run(
    app: ASGIApp, listener: socket.socket, drain_s: int, announce: Callable[[], None]
) -> None:
    """Serve until SIGTERM or SIGINT; running requests are finished first.

    Args:
      app: the application.
      listener: a bound socket.
      drain_s: how long running requests may take to finish, in seconds.
      announce: called once connections are accepted.
    """
    settings = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain_s,
    )
    _Server(settings, announce).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says when it is ready."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()
