"""The ASGI application: routes, gate, metrics, and the verifier's life."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING

from fdjax.errors import InstallError

try:
    from fastapi import APIRouter, FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from fastapi.routing import APIRoute
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
    from starlette.routing import Route
except ImportError as error:
    raise InstallError(
        f"The server needs the package {error.name}, which is missing; run `pip "
        "install fdjax[serve]`."
    ) from error

import fdjax
from fdjax.lean import Verifier
from fdjax.serve.config import ServeConfig
from fdjax.serve.health import Health, health_routes
from fdjax.serve.kimina import kimina_routes
from fdjax.serve.limits import Gate
from fdjax.serve.metrics import Metrics, RequestMetrics
from fdjax.serve.verdicts import verdict_routes
from fdjax.serve.work import Work

if TYPE_CHECKING:  # it needs an extra of its own
    from fdjax.serve.mcp_app import McpApp

__all__ = ["make_app"]


def make_app(
    verifier: Verifier,
    config: ServeConfig | None = None,
    *,
    mcp: "McpApp | None" = None,
) -> FastAPI:
    """The server around a verifier, to be run by one process of any ASGI server.

    The verifier starts and is closed with the application.

    Args:
      verifier: decides; its limits are the most that a request may ask for.
      config: what clients may do.
      mcp: tools over the same verifier, to be served as well; None leaves them out.
    """
    config = config or ServeConfig()

    def probe() -> None:
        verifier.elaborate(["theorem probe : True := trivial"])

    health = Health(probe, config.unhealthy_after_s)
    metrics = Metrics(lambda: verifier.statistics)
    work = Work(verifier, config, health, metrics)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(verifier.start)
        recovery = asyncio.create_task(health.recover())
        try:
            async with nullcontext() if mcp is None else mcp.run():
                yield
        finally:
            recovery.cancel()
            await asyncio.to_thread(verifier.close)
            work.close()

    app = FastAPI(
        title="fdjax serve",
        version=fdjax.__version__,
        lifespan=life,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(kimina_routes(work))
    app.include_router(verdict_routes(work, trust_headers=config.trust_headers))
    app.include_router(_also_head(health_routes(health)))
    if mcp is not None:
        app.router.routes.append(Route(mcp.path, endpoint=mcp))

    @app.get("/metrics", tags=["health"])
    async def get_metrics() -> Response:
        text = generate_latest(metrics.registry)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.add_exception_handler(RequestValidationError, _describe_faults)
    app.add_middleware(Gate, config=config)
    app.add_middleware(RequestMetrics, metrics=metrics)
    return app


def _also_head(router: APIRouter) -> APIRouter:
    """`router`, for load balancers that ask without wanting a body."""
    for route in list(router.routes):
        assert isinstance(route, APIRoute)
        router.add_api_route(
            route.path, route.endpoint, methods=["HEAD"], include_in_schema=False
        )
    return router


async def _describe_faults(request: Request, error: Exception) -> JSONResponse:
    """What is wrong with a body, without repeating it: it may not even be Unicode."""
    assert isinstance(error, RequestValidationError)
    faults = [
        {key: fault[key] for key in ("type", "loc", "msg")} for fault in error.errors()
    ]
    return JSONResponse({"detail": faults}, 422)
