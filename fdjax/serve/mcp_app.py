"""The tools of an episode as an MCP server, by the protocol's own SDK.

Sessions hold a workspace each, so clients are answered in the revisions of the protocol
that have sessions (up to 2025-11-25). Those that can do without are told so and begin
one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any

from fdjax.errors import InstallError

try:
    from mcp import types
    from mcp.server import Server, ServerRequestContext
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.server.transport_security import TransportSecuritySettings
    from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS
except ImportError as error:
    raise InstallError(
        f"`fdjax serve --mcp` needs the package {error.name}, which is missing; run "
        "`pip install fdjax[serve,mcp]`."
    ) from error

from starlette.types import Message, Receive, Scope, Send

import fdjax
from fdjax.serve.mcp_sessions import IDLE_S, Sessions
from fdjax.tools import LEAN_TOOLS, LeanTools

__all__ = ["McpApp"]

SESSIONS = 64
"""Sessions at once; another client is refused until one ends."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_HEADER = b"mcp-session-id"
_INSTRUCTIONS = (
    "Tools of a Lean 4 prover. Each session has a workspace of its own, which goes "
    "when the session ends. What a tool says is no verdict on a theorem."
)
_NO_SESSION = (
    "error: each session has its own workspace, and this request belongs to none; "
    "connect with `initialize`"
)


class McpApp:
    """An ASGI application that speaks MCP over streamable HTTP."""

    path = "/mcp"
    """Where it is served, also for metrics."""

    def __init__(
        self, tools: LeanTools, *, is_local: bool, idle_s: float = IDLE_S
    ) -> None:
        """Prepare; `run` must surround all requests.

        Args:
          tools: opens toolboxes.
          is_local: only programs of this machine may ask, and no page in a browser
            that was led here under another name; for servers without a token.
          idle_s: how long a session lives without a request, in seconds.
        """
        self._sessions = Sessions(tools, idle_s)
        server: Server[dict[str, Any]] = Server(
            "fdjax",
            version=fdjax.__version__,
            instructions=_INSTRUCTIONS,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )
        server.add_request_handler(
            "server/discover", types.RequestParams, self._discover
        )
        self._server = server
        self._manager = StreamableHTTPSessionManager(
            server,
            security_settings=TransportSecuritySettings(
                enable_dns_rebinding_protection=is_local,
                allowed_hosts=[f"{host}:*" for host in LOOPBACK],
                allowed_origins=[f"http://{host}:*" for host in LOOPBACK],
            ),
            session_idle_timeout=idle_s,
            max_sessions=SESSIONS,
        )

    @property
    def workspaces(self) -> int:
        """How many sessions have one."""
        return len(self._sessions)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Serve sessions; all of them end with it."""
        sweeping = asyncio.create_task(self._sessions.sweep())
        try:
            async with self._manager.run():
                yield
        finally:
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping
            self._sessions.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and take note of the session that it belongs to."""
        scope.setdefault("route", self)
        session = dict(scope["headers"]).get(_HEADER, b"").decode("latin-1")
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._sessions.request(session) if session else nullcontext():
            await self._manager.handle_request(scope, receive, noting)
        # A session that is over, or was none.
        if session and (
            status == 404 or (scope["method"] == "DELETE" and status < 400)
        ):
            self._sessions.end(session)

    async def _discover(
        self, context: ServerRequestContext[Any], params: types.RequestParams
    ) -> types.DiscoverResult:
        """Only revisions with sessions: clients of later ones fall back to those."""
        return types.DiscoverResult(
            supported_versions=list(HANDSHAKE_PROTOCOL_VERSIONS),
            capabilities=self._server.get_capabilities(),
            instructions=_INSTRUCTIONS,
        )

    async def _list(
        self,
        context: ServerRequestContext[Any],
        params: types.PaginatedRequestParams | None,
    ) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=spec.name,
                    description=spec.description,
                    input_schema=spec.schema,
                )
                for spec in LEAN_TOOLS
            ]
        )

    async def _call(
        self, context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        request = context.request
        session = None if request is None else request.headers.get(_HEADER.decode())
        if not session:
            return _result(_NO_SESSION, is_error=True)
        seen = await self._sessions.call(session, params.name, params.arguments or {})
        return _result(seen.text, is_error=seen.ended != "done")


def _result(text: str, *, is_error: bool) -> types.CallToolResult:
    content: list[Any] = [types.TextContent(type="text", text=text)]
    return types.CallToolResult(content=content, is_error=is_error)
