"""A workspace for each client's session, for as long as the session lives."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from fdjax.tools import LeanTools, Observation, Toolbox

__all__ = ["IDLE_S", "Sessions"]

IDLE_S = 1800.0
"""Seconds without a request, open streams included, after which a session ends."""
CALLS_AT_ONCE = 8
"""Calls of one session that are carried out together; others wait."""


@dataclass(kw_only=True)
class _Session:
    """What belongs to one client."""

    toolbox: Toolbox
    stack: ExitStack
    """Holds the workspace."""
    gate: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(CALLS_AT_ONCE)
    )


class Sessions:
    """Toolboxes by the ids of sessions; used on one event loop."""

    def __init__(self, tools: LeanTools, idle_s: float = IDLE_S) -> None:
        """Begin without any.

        Args:
          tools: opens toolboxes.
          idle_s: how long a session lives without a request.
        """
        self._tools = tools
        self._idle_s = idle_s
        self._sessions: dict[str, _Session] = {}
        self._requests: dict[str, int] = {}
        self._seen: dict[str, float] = {}

    def __len__(self) -> int:
        """How many have a workspace."""
        return len(self._sessions)

    @contextmanager
    def request(self, session: str) -> Iterator[None]:
        """A request of a session is under way: it lives."""
        self._requests[session] = self._requests.get(session, 0) + 1
        try:
            yield
        finally:
            # Another request, such as DELETE, may have ended the session meanwhile.
            if session in self._requests:
                self._requests[session] -= 1
                self._seen[session] = time.monotonic()

    async def call(
        self, session: str, name: str, arguments: Mapping[str, Any]
    ) -> Observation:
        """Carry out a call on the session's own workspace, made with its first."""
        held = self._sessions.get(session)
        if held is None:
            stack = ExitStack()
            toolbox = stack.enter_context(self._tools.open())
            held = self._sessions[session] = _Session(toolbox=toolbox, stack=stack)
        async with held.gate:
            return await held.toolbox.call(name, arguments)

    def end(self, session: str) -> None:
        """The session is over; its workspace goes."""
        self._requests.pop(session, None)
        self._seen.pop(session, None)
        held = self._sessions.pop(session, None)
        if held is not None:
            held.stack.close()

    async def sweep(self) -> None:
        """End sessions that have been idle for too long, for ever."""
        while True:
            await asyncio.sleep(min(self._idle_s / 4, 60.0))
            now = time.monotonic()
            for session, seen in list(self._seen.items()):
                is_idle = not self._requests.get(session)
                # Somewhat later than the transport, which must not outlive it.
                if is_idle and now - seen > 1.1 * self._idle_s:
                    self.end(session)

    def close(self) -> None:
        """End all."""
        for session in [*self._sessions, *self._seen]:
            self.end(session)
