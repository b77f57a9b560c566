"""Who may ask for how much, on a server without Lean."""

import http.client
import json
import socket
import threading

import pytest

from serving import Server, wait_until

TOKEN = "a secret"
KEY = {"Authorization": f"Bearer {TOKEN}"}
ROUTES = ["/api/check", "/verify", "/v1/verify", "/v1/check"]


def check(*texts, **fields):
    snippets = [{"id": str(i), "code": text} for i, text in enumerate(texts)]
    return {"snippets": snippets} | fields


def data_of(results):
    return [result["response"]["messages"][0]["data"] for result in results]


@pytest.fixture(scope="module")
def server():
    with Server.fake() as server:
        yield server


@pytest.fixture(scope="module")
def guarded():
    settings = {"token": TOKEN, "max_body_bytes": 4096, "max_items": 4}
    with Server.fake(server=settings | {"max_pending": 4}, workers=1) as server:
        yield server


# ---- the token


@pytest.mark.parametrize("route", [*ROUTES, "/api/check/", "/metrics", "/nowhere"])
@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({}, "Missing API key"),
        ({"Authorization": "Bearer wrong"}, "Invalid API key"),
        ({"Authorization": "Bearer "}, "Invalid API key"),
        ({"Authorization": "Bearer a secreté"}, "Invalid API key"),
    ],
)
def test_no_route_without_the_token(guarded, route, headers, detail):
    encoded = {key: value.encode() for key, value in headers.items()}
    status, found, body = guarded.request("POST", route, b"no JSON", encoded)
    assert (status, json.loads(body)) == (401, {"detail": detail})
    assert found["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "value", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} ", TOKEN]
)
def test_the_token_opens(guarded, value):
    status, answer = guarded.post(
        "/api/check", check("a"), headers={"Authorization": value}
    )
    assert status == 200
    assert data_of(answer["results"]) == ["a"]


@pytest.mark.parametrize("path", ["/", "/health", "/health/", "/ready"])
def test_load_balancers_need_no_token(guarded, path):
    assert guarded.get(path)[0] == 200
    status, headers, body = guarded.request("HEAD", path)
    assert (status, headers["content-type"], body) == (200, "application/json", b"")
    assert guarded.request("HEAD", "/metrics")[0] == 401


# ---- sizes


def test_a_large_body_is_refused_by_its_header(guarded):
    body = check("x" * 5000)
    status, answer = guarded.post("/api/check", body, headers=KEY)
    assert status == 413
    assert "4096 bytes" in answer["detail"]


def test_a_large_body_is_refused_where_it_ends_nowhere(guarded):
    """Chunks do not say how long the body will be."""
    with socket.create_connection((guarded.host, guarded.port), timeout=10) as sock:
        sock.sendall(
            b"POST /api/check HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: application/json\r\nAuthorization: Bearer a secret\r\n\r\n"
        )
        for _ in range(5):
            sock.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/api/check", check(*"abcde")),
        ("/verify", {"codes": [{"custom_id": 1, "proof": ""}] * 5}),
        (
            "/v1/verify",
            {"items": [{"name": "t", "statement": "t", "proof": ""}] * 5},
        ),
    ],
)
def test_too_many_items_are_refused(guarded, route, body):
    status, answer = guarded.post(route, body, headers=KEY)
    assert status == 422
    assert "at most 4 items, got 5" in answer["detail"]


def test_a_saturated_server_says_when_to_come_back(guarded):
    slow = threading.Thread(
        target=guarded.post,
        args=("/api/check", check("sleep 600", "sleep 600", "c")),
        kwargs={"headers": KEY},
    )
    slow.start()
    pending = "fdjax_pending_items"

    def waiting():
        text = guarded.get("/metrics", headers=KEY)[1]
        return next(
            float(line.split()[1])
            for line in text.splitlines()
            if line.startswith(pending)
        )

    assert wait_until(lambda: waiting() == 3)
    status, headers, body = guarded.request(
        "POST", "/api/check", check("d", "e"), headers=KEY
    )
    assert (status, headers["retry-after"]) == (429, "2")
    assert json.loads(body) == {"detail": "No available REPLs"}
    # One more fits, and items count only until they are finished.
    assert guarded.post("/api/check", check("d"), headers=KEY)[0] == 200
    slow.join()
    assert waiting() == 0
    assert guarded.post("/api/check", check(*"abcd"), headers=KEY)[0] == 200


# ---- bodies


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/api/check", b"no JSON"),
        ("/api/check", b"[" * 100_000),
        ("/api/check", b"\xff"),
        ("/api/check", {}),
        ("/api/check", {"snippets": []}),
        ("/api/check", {"snippets": {"id": "a", "code": "x"}}),
        ("/api/check", {"snippets": [{"custom_id": "a", "code": "x"}]}),
        ("/api/check", {"snippets": [{"id": "a", "code": "x"}] * 2}),
        ("/api/check", check("x", timeout=-1)),
        ("/api/check", check("x", timeout=float("nan"))),
        ("/api/check", check("x", timeout=10**400)),
        ("/api/check", check("x", timeout=None)),
        ("/api/check", check("x", infotree="full")),
        ("/verify", {"codes": [], "timeout": 10**400}),
        ("/verify", {"codes": [{"custom_id": 1}]}),
        ("/verify", {"codes": [{"proof": "x"}]}),
        ("/verify", {"codes": [], "infotree_type": "tactics"}),
        ("/v1/verify", {"items": [{"name": "t", "statement": "t"}]}),
        ("/v1/verify", {"items": [{"name": "", "statement": "t", "proof": ""}]}),
        (
            "/v1/verify",
            {"items": [{"name": "t", "statement": "t", "proof": "", "source": ""}]},
        ),
        ("/v1/check", {"statement": "t"}),
        ("/v1/check", {"source": "x", "limits": {"wall_s": 0}}),
        ("/v1/check", {"source": "x", "limits": {"wall_s": 1e9}}),
        ("/v1/check", {"source": "x", "limits": {"wall_s": float("nan")}}),
        ("/v1/check", {"source": "x", "limits": {"wall_s": float("inf")}}),
        ("/v1/check", {"source": "x", "limits": {"wall_s": -float("inf")}}),
        ("/v1/check", {"source": "x", "limits": {"heartbeats": float("nan")}}),
        ("/v1/check", {"source": "x", "limits": {"output_bytes": 1 << 40}}),
    ],
)
def test_a_wrong_body_is_described(server, route, body):
    status, headers, content = server.request("POST", route, body)
    # FastAPI's own answer to JSON that no parser can hold is 400.
    assert status == (400 if body in (b"[" * 100_000, b"\xff") else 422)
    assert headers["content-type"] == "application/json"
    assert json.loads(content)["detail"]


def test_info_trees_are_refused_in_words(server):
    _, answer = server.post("/api/check", check("x", infotree="full"))
    assert "info trees are not offered" in answer["detail"][0]["msg"]


def test_text_that_is_not_unicode_comes_back_as_it_was(server):
    body = {"snippets": [{"id": "\ud800", "code": "\udfff"}]}
    status, answer = server.post("/api/check", body)
    assert status == 200
    assert answer["results"][0]["id"] == "\ud800"
    [message] = answer["results"][0]["response"]["messages"]
    assert message["severity"] == "error"


# ---- many clients


def test_concurrent_clients_get_their_own_answers_in_order(server):
    """Answers differ in time, so that they would arrive in another order."""
    wrong = []

    def client(number):
        for turn in range(3):
            texts = [
                f"client {number} turn {turn} text {i} sleep {(7 * i) % 5}"
                for i in range(15)
            ]
            status, answer = server.post("/api/check", check(*texts))
            if status != 200 or data_of(answer["results"]) != texts:
                wrong.append((status, answer))

    clients = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert not wrong


def test_a_client_that_leaves_takes_its_work_along_and_nobody_elses(server):
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    body = json.dumps(check(*[f"sleep 100 {i}" for i in range(500)]))
    connection.request("POST", "/api/check", body, {"Content-Type": "application/json"})
    assert wait_until(lambda: server.metric("fdjax_pending_items") > 400)
    answers = []
    stays = threading.Thread(
        target=lambda: answers.append(server.post("/api/check", check("b", "c")))
    )
    stays.start()
    connection.close()
    # The 500 would take 25 s; what runs at the moment is finished.
    stays.join(10)
    assert not stays.is_alive()
    [(status, answer)] = answers
    assert status == 200
    assert data_of(answer["results"]) == ["b", "c"]
    assert wait_until(lambda: server.metric("fdjax_pending_items") == 0)


def test_single_proofs_of_clients_that_leave_are_not_begun(server):
    request = {
        "name": "t",
        "header": "",
        "statement": "theorem t : True",
        "proof": "  trivial",
    }
    connections = []
    for number in range(12):
        connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
        body = json.dumps(request | {"proof": f"  trivial -- sleep 1000 {number}"})
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/check", body, headers)
        connections.append(connection)
    assert wait_until(lambda: server.metric("fdjax_pending_items") == 12)
    for connection in connections:
        connection.close()
    # All of them would take 6 s on two workers.
    assert wait_until(lambda: server.metric("fdjax_pending_items") == 0, seconds=3)
    assert server.post("/v1/check", request)[0] == 200
