"""Retries and refusals of the JSON client, against a server that follows a script."""

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fdjax.errors import BackendError
from fdjax.lean import WorkerDiedError
from fdjax.lean.http import JsonClient


class Script:
    """Answers in turn what it is told; `None` drops the connection."""

    def __init__(self):
        self.steps = []
        self.seen = []
        self.connections = set()
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                script.answer(self)

            do_GET = do_POST

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, handler):
        length = int(handler.headers.get("Content-Length", 0))
        body = handler.rfile.read(length)
        self.seen.append((handler.command, handler.path, body, handler.headers))
        self.connections.add(handler.client_address)
        step = self.steps.pop(0) if self.steps else (200, {}, {})
        if step is None:
            handler.close_connection = True
            return
        status, headers, content = step
        if status == "wait":
            content.wait(10)
            return
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)


@pytest.fixture
def script():
    script = Script()
    yield script
    script.server.shutdown()
    script.server.server_close()


@pytest.fixture
def client(script):
    client = JsonClient(script.url + "/", token="secret", patience_s=5.0)
    yield client
    client.close()


def test_a_request_and_its_answer(script, client):
    script.steps = [(200, {}, {"α": [1, None]})]
    assert client.post("/v1/x", {"β": 2}) == {"α": [1, None]}
    assert client.get("/y") == {}
    [(method, path, body, headers), (other, *_)] = script.seen
    assert (method, path, json.loads(body)) == ("POST", "/v1/x", {"β": 2})
    assert headers["Authorization"] == "Bearer secret"
    assert other == "GET"
    assert len(script.connections) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, None])
def test_what_fails_for_the_moment_is_repeated(script, client, status):
    failure = status and (status, {}, {})
    script.steps = [failure, failure, (200, {}, {"ok": 1})]
    assert client.post("/x", {"n": 1}) == {"ok": 1}
    assert [json.loads(body) for _, _, body, _ in script.seen] == [{"n": 1}] * 3


def test_retry_after_is_obeyed(script, client):
    script.steps = [(429, {"Retry-After": "1"}, {}), (200, {}, {"ok": 1})]
    begin = time.monotonic()
    assert client.post("/x", {}) == {"ok": 1}
    assert time.monotonic() - begin >= 1.0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 302])
def test_a_refusal_is_not_repeated(script, client, status):
    script.steps = [(status, {}, {"detail": "because"})]
    with pytest.raises(BackendError, match=f"got {status} .*because") as caught:
        client.post("/x", {})
    assert not isinstance(caught.value, WorkerDiedError)
    assert len(script.seen) == 1


def test_an_answer_without_json_is_no_answer(script, client):
    script.steps = [(200, {}, b"<html>")]
    with pytest.raises(BackendError, match="expected a JSON answer, got 200 OK: <html"):
        client.post("/x", {})


def test_patience_ends():
    client = JsonClient("http://127.0.0.1:9", patience_s=0.5)
    begin = time.monotonic()
    with pytest.raises(WorkerDiedError, match=r"no answer in \d+ attempts: Connect"):
        client.post("/x", {})
    assert time.monotonic() - begin < 5
    client.close()


def test_patience_ends_where_the_server_asks_for_more(script):
    script.steps = [(429, {"Retry-After": "60"}, {})]
    client = JsonClient(script.url, patience_s=5.0)
    with pytest.raises(WorkerDiedError, match="no answer in 1 attempts: 429"):
        client.post("/x", {})
    client.close()


@pytest.mark.parametrize("step", ["answer", "pause"])
def test_interrupt_ends_a_request_and_the_next_one_works(script, client, step):
    release = threading.Event()
    waits = {
        "answer": ("wait", {}, release),
        "pause": (429, {"Retry-After": "4"}, {}),
    }
    script.steps = [waits[step]]
    timer = threading.Timer(0.3, client.interrupt)
    timer.start()
    begin = time.monotonic()
    with pytest.raises(WorkerDiedError, match="interrupted"):
        client.post("/x", {})
    assert time.monotonic() - begin < 3
    release.set()
    timer.join()
    assert client.post("/x", {}) == {}


def test_interrupt_without_a_request_does_nothing(client):
    client.interrupt()
    assert client.post("/x", {}) == {}


def test_a_closed_client_opens_again(script, client):
    client.post("/x", {})
    client.close()
    client.close()
    assert client.post("/x", {}) == {}
    assert len(script.connections) == 2


def test_it_works_where_a_loop_is_running(client):
    async def main():
        return client.get("/x")

    assert asyncio.run(main()) == {}


def test_no_thread_stays(script):
    client = JsonClient(script.url)
    client.get("/x")
    names = [thread.name for thread in threading.enumerate()]
    assert "lean-http" in names
    client.close()
    names = [thread.name for thread in threading.enumerate()]
    assert "lean-http" not in names
