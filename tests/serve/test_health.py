"""Health, readiness and metrics."""

import re

import pytest

from serving import Server, wait_until

BODY = {"snippets": [{"id": "a", "code": "x"}]}


def test_a_server_that_cannot_start_lean_says_so_and_recovers(tmp_path):
    broken = tmp_path / "broken"
    settings = {"unhealthy_after_s": 0.5}
    with Server.fake(broken=str(broken), server=settings) as server:
        assert server.get("/ready") == (200, '{"status":"ready"}')
        broken.touch()
        assert server.post("/api/check", BODY)[0] == 500
        assert server.get("/ready") == (503, '{"status":"failing"}')
        assert server.get("/health")[0] == 200
        assert wait_until(lambda: server.get("/health")[0] == 503, 5)
        broken.unlink()
        # Nobody asks a server that is not ready, so it must find out by itself.
        assert wait_until(lambda: server.get("/ready")[0] == 200, 10)
        assert server.get("/health") == (200, '{"status":"ok"}')


@pytest.fixture(scope="module")
def text():
    with Server.fake() as server:
        server.post("/api/check", BODY)
        item = {"name": "t", "statement": "t"}
        proofs = ["trivial", "no", "die", "#eval"]
        items = [item | {"proof": proof} for proof in proofs]
        server.post("/v1/verify", {"items": items})
        server.post("/v1/verify", {"items": items})
        server.post("/v1/check", {"source": "x"})
        server.post("/v1/check", {})
        server.get("/a")
        server.get("/b")
        status, headers, content = server.request("GET", "/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain; version=")
        yield content.decode()


@pytest.mark.parametrize(
    "line",
    [
        'fdjax_requests_total{route="/api/check",status="200"} 1.0',
        'fdjax_requests_total{route="/v1/verify",status="200"} 2.0',
        'fdjax_requests_total{route="/v1/check",status="422"} 1.0',
        'fdjax_requests_total{route="none",status="404"} 2.0',
        'fdjax_request_seconds_count{route="/v1/verify"} 2.0',
        'fdjax_items_total{outcome="done"} 1.0',
        'fdjax_items_total{outcome="verified"} 2.0',
        'fdjax_items_total{outcome="rejected"} 2.0',
        'fdjax_items_total{outcome="unsafe"} 2.0',
        'fdjax_items_total{outcome="crashed"} 2.0',
        'fdjax_items_total{outcome="observed"} 1.0',
        "fdjax_pending_items 0.0",
        "fdjax_worker_restarts_total 4.0",
        "fdjax_cache_hits_total 3.0",
    ],
)
def test_metrics(text, line):
    assert line in text.splitlines()


def test_seconds_are_those_of_lean(text):
    """0.25 of the snippet, 0.5 of each decided proof, 0.25 of the observed file."""
    assert re.search(r"^fdjax_item_seconds_sum 1\.5$", text, re.M)
