"""What Prometheus is told."""

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fdjax.lean import Statistics

__all__ = ["Metrics", "RequestMetrics"]

REQUEST_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
ITEM_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        """Make all metrics.

        Args:
          statistics: gives the verifier's counts.
        """
        self.registry = CollectorRegistry()
        """What `/metrics` prints."""
        self.requests = Counter(
            "fdjax_requests",
            "HTTP requests that were answered.",
            ("route", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "fdjax_request_seconds",
            "Time from a request's headers to the end of its answer.",
            ("route",),
            buckets=REQUEST_SECONDS,
            registry=self.registry,
        )
        self.items = Counter(
            "fdjax_items",
            "Snippets and proofs, by what became of them.",
            ("outcome",),
            registry=self.registry,
        )
        self.item_seconds = Histogram(
            "fdjax_item_seconds",
            "Time Lean took for one item; nothing for items from the cache.",
            buckets=ITEM_SECONDS,
            registry=self.registry,
        )
        self.pending = Gauge(
            "fdjax_pending_items",
            "Items that are admitted and unfinished.",
            registry=self.registry,
        )
        self.registry.register(_VerifierCounts(statistics))

    def count_item(self, outcome: str, seconds: float | None) -> None:
        """One item is done.

        Args:
          outcome: a verdict's status, or how an elaboration ended.
          seconds: what Lean took; None when it was not asked.
        """
        self.items.labels(outcome).inc()
        if seconds is not None:
            self.item_seconds.observe(seconds)


class _VerifierCounts(Collector):
    """Counts that the verifier keeps anyway."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        counts = self._statistics()
        yield CounterMetricFamily(
            "fdjax_worker_restarts",
            "Lean workers that died during a request and were replaced.",
            counts.restarts,
        )
        yield CounterMetricFamily(
            "fdjax_cache_hits", "Items answered from the cache.", counts.cached
        )


class RequestMetrics:
    """Counts and times every request around `app`."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Stand around `app`."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and take note of its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # of a request that ends in an exception

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        begin = time.perf_counter()
        try:
            await self._app(scope, receive, noting)
        finally:
            # Paths that match no route are one series, or anybody could make many.
            route = getattr(scope.get("route"), "path", "none")
            seconds = time.perf_counter() - begin
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
