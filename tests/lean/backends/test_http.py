"""Retries and refusals of the JSON client, against a server that follows a script."""

import asyncio
import json
import socket
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fdjax import http
from fdjax.errors import BackendError, ConfigError
from fdjax.lean import WorkerDiedError
from fdjax.lean.backends.http import JsonClient


class Script:
    """Answers in turn what it is told; `None` drops the connection."""

    def __init__(self, port=0):
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

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(
            target=self.server.serve_forever, args=(0.02,), daemon=True
        ).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

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
        if status == "late":
            content.wait(10)
            status, headers, content = headers
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
    script.close()


@pytest.fixture
def client(script):
    client = JsonClient(script.url + "/", token="secret", away_s=5.0, busy_s=5.0)
    yield client
    client.close()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_request_and_its_answer(script, client):
    script.steps = [(200, {}, {"α": [1, None]})]
    assert client.post("/v1/x", {"β": 2}) == {"α": [1, None]}
    assert client.get("/y") == {}
    [(method, path, body, headers), (other, *_)] = script.seen
    assert (method, path, json.loads(body)) == ("POST", "/v1/x", {"β": 2})
    assert headers["Authorization"] == "Bearer secret"
    assert other == "GET"
    assert len(script.connections) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 499, 500, 502, 503, 504, None])
def test_what_fails_for_the_moment_is_repeated(script, client, status):
    failure = status and (status, {}, {})
    script.steps = [failure, (200, {}, {"ok": 1})]
    assert client.post("/x", {"n": 1}) == {"ok": 1}
    assert [json.loads(body) for _, _, body, _ in script.seen] == [{"n": 1}] * 2


@pytest.mark.parametrize(
    ("status", "form"),
    [(429, "seconds"), (500, "seconds"), (503, "date"), (429, "date without a zone")],
)
def test_retry_after_is_obeyed(script, client, status, form):
    moment = datetime.now(UTC) + timedelta(seconds=2)  # a date has whole seconds
    value = {
        "seconds": "1",
        "date": format_datetime(moment, usegmt=True),
        "date without a zone": format_datetime(moment.replace(tzinfo=None)),
    }[form]
    script.steps = [(status, {"Retry-After": value}, {}), (200, {}, {"ok": 1})]
    begin = time.monotonic()
    assert client.post("/x", {}) == {"ok": 1}
    assert time.monotonic() - begin >= 0.9


def test_a_retry_is_told_in_a_sentence(script, client, caplog):
    script.steps = [(503, {}, {"detail": "soon"})]
    client.post("/x", {})
    [record] = caplog.records
    text = record.getMessage()
    assert text.startswith(f"{script.url} gave no answer (503 Service Unavailable: ")
    assert "is asked again in " in text
    assert "Error" not in text


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 302])
def test_a_refusal_is_not_repeated(script, client, status):
    script.steps = [(status, {}, {"detail": "because"})]
    with pytest.raises(BackendError, match=f"got {status} .*because") as caught:
        client.post("/x", {})
    assert not isinstance(caught.value, WorkerDiedError)
    assert len(script.seen) == 1


def test_an_answer_without_json_is_no_answer(script, client):
    script.steps = [(200, {}, b"<html>")]
    with pytest.raises(WorkerDiedError, match="a JSON answer, got 200 OK: <html"):
        client.post("/x", {})
    script.steps = [(200, {}, b"<html>")]
    with pytest.raises(BackendError, match="a JSON answer, got 200 OK: <html") as error:
        client.get("/x")
    assert not isinstance(error.value, WorkerDiedError)


# ---- how long


@pytest.mark.parametrize("method", ["post", "get"])
def test_nobody_there_is_an_error_of_the_server(method):
    client = JsonClient(f"http://127.0.0.1:{free_port()}", away_s=0.5)
    begin = time.monotonic()
    arguments = ["/x", {}] if method == "post" else ["/x"]
    words = r"none in \d+ attempts, at last ConnectError.*; start the server"
    with pytest.raises(BackendError, match=words) as error:
        getattr(client, method)(*arguments)
    assert not isinstance(error.value, WorkerDiedError)
    assert 0.4 < time.monotonic() - begin < 5
    client.close()


@pytest.mark.parametrize("status", [408, 425, 429, 499, 502, 503, 504])
def test_absence_is_an_error_of_the_server_whatever_its_health_says(script, status):
    script.steps = [(status, {}, {})] * 50
    client = JsonClient(script.url, away_s=0.3, busy_s=0.3, failures=1)
    with pytest.raises(BackendError, match=f"at last {status} ") as error:
        client.post("/x", {})
    assert not isinstance(error.value, WorkerDiedError)
    assert len(script.seen) > 1
    client.close()


def test_patience_with_absence_and_with_a_busy_server_differ(script):
    client = JsonClient(script.url, away_s=0.0, busy_s=5.0)
    script.steps = [(429, {}, {})]
    assert client.post("/x", {}) == {}
    script.steps = [(503, {}, {})]
    with pytest.raises(BackendError, match="none in 1 attempts"):
        client.post("/x", {})
    client.close()


@pytest.mark.parametrize(
    "failure", [(500, {}, {"detail": "died"}), (200, {}, b" " * 200_000), None]
)
def test_a_failure_of_one_request_is_its_own(script, failure, monkeypatch):
    monkeypatch.setattr(http, "LARGEST_ANSWER", 100_000)
    script.steps = [failure] * 3
    client = JsonClient(script.url, away_s=5.0, failures=3)
    with pytest.raises(WorkerDiedError, match="none in 3 attempts") as error:
        client.post("/x", {})
    assert not error.value.innocent
    paths = [(method, path) for method, path, *_ in script.seen]
    assert paths == [("POST", "/x")] * 3 + [("GET", "/health")]
    client.close()


@pytest.mark.parametrize("health", [(503, {}, {}), (500, {}, {}), (404, {}, {}), None])
def test_a_failure_of_a_server_that_is_unwell_is_not(script, health):
    script.steps = [(500, {}, {})] * 2 + [health] * 50
    client = JsonClient(script.url, away_s=0.5, failures=2)
    with pytest.raises(BackendError, match=r"/health: expected") as error:
        client.post("/x", {})
    assert not isinstance(error.value, WorkerDiedError)
    client.close()


def test_a_server_that_comes_back_in_time_has_lost_nothing():
    port = free_port()
    client = JsonClient(f"http://127.0.0.1:{port}", away_s=20.0, failures=1)
    servers = []
    timer = threading.Timer(1.0, lambda: servers.append(Script(port)))
    timer.start()
    assert client.post("/x", {}) == {}
    timer.join()
    client.close()
    servers[0].close()


def test_patience_begins_with_the_first_failure(script):
    """A long request is no reason to give its server less time to come back."""
    client = JsonClient(script.url, away_s=0.5)
    slow = threading.Event()
    threading.Timer(1.0, slow.set).start()
    script.steps = [("late", (503, {}, {}), slow), (200, {}, {"ok": 1})]
    assert client.post("/x", {}) == {"ok": 1}
    client.close()


def test_patience_ends_where_the_server_asks_for_more(script):
    script.steps = [(429, {"Retry-After": "60"}, {})]
    client = JsonClient(script.url, busy_s=5.0)
    with pytest.raises(BackendError, match="none in 1 attempts, at last 429"):
        client.post("/x", {})
    client.close()


# ---- what no patience mends


@pytest.mark.parametrize(
    "url",
    [
        "",
        "foo",
        "127.0.0.1:8000",
        "localhost:8000",
        "//host",
        "ftp://host",
        "http://",
        "http:///path",
        "http://host:port",
        "http://host:99999",
        "http://host:0",
        "http://[::1",
        "http://ho st",
        " http://host",
        "http://host\n",
        "http://host?a=b",
        "http://host#a",
    ],
)
def test_what_is_no_address(url):
    with pytest.raises(ConfigError, match=r"http\(s\)://host\[:port\], got .*correct"):
        JsonClient(url)


@pytest.mark.parametrize(
    "url", ["http://h", "HTTPS://h:1/", "http://[::1]:8000", "https://h/lean/kimina"]
)
def test_what_is_an_address(url):
    assert JsonClient(url).url == url.rstrip("/")


def test_tls_with_a_server_that_has_none_is_an_error_at_once(script):
    client = JsonClient(script.url.replace("http:", "https:"), away_s=10.0)
    begin = time.monotonic()
    words = r"expected a connection.*SSL.*https"
    with closing(client), pytest.raises(BackendError, match=words):
        client.post("/x", {})
    assert time.monotonic() - begin < 5


def test_a_handshake_that_is_cut_short_is_tried_again():
    """A server that ends, or a balancer with none behind it."""
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                accepted.append(connection.recv(65536))
                connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        client = JsonClient(f"https://127.0.0.1:{listener.getsockname()[1]}", away_s=1)
        with pytest.raises(BackendError, match="expected an answer, got none"):
            client.get("/x")
        client.close()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(accepted) > 1


def test_a_token_that_no_header_can_hold_is_an_error_at_once(script):
    client = JsonClient(script.url, token="two\nlines", away_s=10.0)
    with closing(client), pytest.raises(BackendError, match="the token"):
        client.post("/x", {})
    assert not script.seen


# ---- interruptions


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
    with pytest.raises(WorkerDiedError, match="interrupted") as error:
        client.post("/x", {})
    assert error.value.innocent
    assert len(script.seen) == 1  # nobody is asked for health
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
