"""The gate before all routes: token and size of the body."""

import secrets

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fdjax.serve.config import ServeConfig

__all__ = ["OPEN_PATHS", "Gate"]

OPEN_PATHS = frozenset({"/", "/health", "/health/", "/ready"})
"""What load balancers ask without a token."""


class Gate:
    """Refuses a request before its body is read: 401 without the token, 413 if large.

    Written against ASGI itself, since a route sees a request only after its body has
    been read and parsed.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        """Stand before `app`."""
        self._app = app
        self._token = config.token
        self._max_bytes = config.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        refusal = None
        if self._token is not None and scope["path"] not in OPEN_PATHS:
            refusal = _refuse_key(headers.get(b"authorization", b""), self._token)
        if refusal is None:
            refusal = self._refuse_length(headers.get(b"content-length", b"0"))
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _refuse_length(self, length: bytes) -> JSONResponse | None:
        if length.isdigit() and int(length) > self._max_bytes:
            return JSONResponse({"detail": self._too_large()}, 413)
        return None

    def _counted(self, receive: Receive) -> Receive:
        """`receive`, for bodies that do not say how long they are."""
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return counted

    def _too_large(self) -> str:
        return (
            f"expected a body of at most {self._max_bytes} bytes; send fewer items at "
            "once"
        )


def _refuse_key(header: bytes, token: str) -> JSONResponse | None:
    challenge = {"WWW-Authenticate": "Bearer"}
    if not header:
        return JSONResponse({"detail": "Missing API key"}, 401, challenge)
    scheme, _, rest = header.partition(b" ")
    given = rest.strip() if scheme.lower() == b"bearer" else header
    if not secrets.compare_digest(given, token.encode()):
        return JSONResponse({"detail": "Invalid API key"}, 401, challenge)
    return None
