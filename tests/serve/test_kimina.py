"""Kimina's interface, with the embedded Lean and for faults without it."""

import importlib.util
import json
import re
import socket
import time
from pathlib import Path

import pytest

from programs import found_by
from serving import Server

TOKEN = "kimina"
SLOW = "theorem s : (List.range 90000).foldl (· + ·) 0 = 3 := by decide +kernel"


@pytest.fixture(scope="module")
def real(lean):
    options = ("--workers", "1", "--timeout", "20", "--token-env", "SERVE_KEY")
    with Server.command(*options, SERVE_KEY=TOKEN) as server:
        yield server


def raw(server, path, body):
    """What goes over the wire, without any client: the answer's lines and body."""
    content = body.encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {server.host}:{server.port}\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((server.host, server.port), timeout=60) as sock:
        sock.sendall(head.encode() + content)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, content = answer.partition(b"\r\n\r\n")
    return head.decode().split("\r\n"), content.decode()


def untimed(text):
    """Times, which no two runs share, and the server's id as fixed text."""
    text = re.sub(r'"time":[0-9.e-]+', '"time":0', text)
    return re.sub(r'"repl_uuid":"[0-9a-f-]{36}"', '"repl_uuid":"ID"', text)


# Bodies as Kimina Lean Server 2.0 writes them, by its models and its tests.
@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (
            "/api/check",
            '{"snippets":[{"id":"nat","code":"#check Nat"}]}',
            '{"results":[{"id":"nat","time":0,"response":{"env":0,"messages":'
            '[{"severity":"info","pos":{"line":1,"column":0},'
            '"endPos":{"line":1,"column":6},"data":"Nat : Type"}]}}]}',
        ),
        (
            "/api/check/",
            '{"snippets":[{"id":"é","code":"theorem t : 1 + 1 = 2 := by rfl"}],'
            '"timeout":30,"debug":true,"reuse":false,"infotree":null}',
            '{"results":[{"id":"é","time":0,"response":{"env":0},'
            '"diagnostics":{"repl_uuid":"ID"}}]}',
        ),
        (
            "/api/check",
            '{"snippets":[{"id":"a","code":"import Std\\n\\ntheorem t : 1 = 2 := by\\n'
            '  sorry"},{"id":"b","code":"example : False := foo\\n#check Nat"}]}',
            '{"results":[{"id":"a","time":0,"response":{"env":0,"messages":'
            '[{"severity":"warning","pos":{"line":3,"column":8},'
            '"endPos":{"line":3,"column":9},"data":"declaration uses `sorry`"}],'
            '"sorries":[{"pos":{"line":3,"column":8},"endPos":{"line":3,"column":9},'
            '"goal":""}]}},{"id":"b","time":0,"response":{"env":0,"messages":'
            '[{"severity":"error","pos":{"line":1,"column":19},'
            '"endPos":{"line":1,"column":22},"data":"Unknown identifier `foo`"},'
            '{"severity":"info","pos":{"line":2,"column":0},'
            '"endPos":{"line":2,"column":6},"data":"Nat : Type"}]}}]}',
        ),
        (
            "/verify",
            '{"codes":[{"custom_id":7,"proof":"#check Nat"},'
            '{"custom_id":"7","code":"#eval 1"}],"timeout":300,'
            '"infotree_type":null,"disable_cache":true}',
            '{"results":[{"custom_id":"7","response":{"env":0,"messages":'
            '[{"severity":"info","pos":{"line":1,"column":0},'
            '"endPos":{"line":1,"column":6},"data":"Nat : Type"}],"time":0}},'
            '{"custom_id":"7","response":{"env":0,"messages":[{"severity":"error",'
            '"pos":{"line":1,"column":0},"data":"fdjax: this text is not run: the '
            'command `#eval` is not allowed"}],"time":0}}]}',
        ),
        ("/one_pass_verify_batch", '{"codes":[]}', '{"results":[]}'),
    ],
)
def test_replies_byte_for_byte(real, path, body, expected):
    head, content = raw(real, path, body)
    assert head[0] == "HTTP/1.1 200 OK"
    assert "content-type: application/json" in head
    assert untimed(content) == expected


@pytest.mark.parametrize(("timeout", "told"), [(1, "1.0"), (0, "0.0")])
def test_a_timeout_is_told_in_kiminas_words(real, timeout, told):
    snippets = [{"id": "slow", "code": SLOW}]
    begin = time.monotonic()
    _, content = raw(
        real, "/api/check", json.dumps({"snippets": snippets, "timeout": timeout})
    )
    assert time.monotonic() - begin < timeout + 5
    expected = (
        f'{{"results":[{{"id":"slow","time":{told},"error":"Lean REPL command timed '
        f'out in {told} seconds","diagnostics":{{"repl_uuid":"ID"}}}}]}}'
    )
    assert re.sub(r'"repl_uuid":"[0-9a-f-]{36}"', '"repl_uuid":"ID"', content) == (
        expected
    )


def test_an_older_clients_timeout(real):
    codes = [{"custom_id": "slow", "proof": SLOW}]
    _, content = raw(real, "/verify", json.dumps({"codes": codes, "timeout": 1}))
    error = "Lean REPL command timed out in 1.0 seconds"
    assert json.loads(content) == {"results": [{"custom_id": "slow", "error": error}]}


@pytest.mark.parametrize(
    "before",
    [
        "import Std\n\nset_option maxHeartbeats 400000\nopen Nat\n\n",
        "-- import Std\nimport Std\n\n\n\n",
        "/- a\n comment -/\n\nimport Init\n\n",
        "\n\n\n\n\n",
    ],
)
def test_lines_are_those_of_the_snippet(real, before):
    code = before + "theorem t : 1 = 2 := by\n  exact foo\n"
    body = {"snippets": [{"id": str(n), "code": code} for n in range(2)]}
    _, content = raw(real, "/api/check", json.dumps(body))
    for result in json.loads(content)["results"]:
        [message] = result["response"]["messages"]
        # Five lines before, and one more.
        assert message["pos"] == {"line": 7, "column": 8}
        assert message["endPos"] == {"line": 7, "column": 11}


def test_no_reply_without_errors_hides_a_sorry(real):
    """Clients take a reply without errors and sorries for a proof."""
    sorry = "theorem last : 1 = 2 := sorry"
    name = "h" * 4000
    flood = "set_option linter.all true\n" + "\n".join(
        f"theorem u{i} ({name} : 1 = 1) : 2 = 2 := rfl" for i in range(20)
    )
    snippets = [
        {"id": "flood", "code": f"{flood}\n{sorry}"},
        {"id": "option", "code": f"set_option warn.sorry false in\n{sorry}"},
        {"id": "macro", "code": 'macro "sorry" : term => `(by trivial)'},
    ]
    _, content = raw(real, "/api/check", json.dumps({"snippets": snippets}))
    for result in json.loads(content)["results"]:
        messages = result["response"]["messages"]
        assert messages[-1]["severity"] == "error", result["id"]
        assert messages[-1]["data"].startswith("fdjax: ")


def test_the_published_client(real):
    if importlib.util.find_spec("kimina_client") is None:
        pytest.skip("kimina-client is not installed; it is part of the dev extra")
    program = Path(__file__).parent / "kimina_program.py"
    found = found_by(program, real.url, TOKEN, timeout_s=120)
    words = ["valid", "valid", "sorry", "valid", "lean_error"] * 4
    expected = {str(i): word for i, word in enumerate(words)}
    expected |= {"code": "lean_error", "slow": "timeout_error"}
    for kind in ("sync", "async"):
        assert found[kind] == {"health": {"status": "ok"}, "statuses": expected}
    assert found["refused"] == "server_error"


# ---- faults, without Lean


@pytest.fixture(scope="module")
def fake():
    with Server.fake(limits={"wall_s": 5.0}) as server:
        yield server


def test_a_fault_is_the_fault_of_its_snippet_alone(fake):
    texts = ["before", "die", "memory", "flood", "after"]
    snippets = [{"id": text, "code": text} for text in texts]
    status, answer = fake.post("/api/check", {"snippets": snippets})
    assert status == 200
    before, died, memory, flood, after = answer["results"]
    for result, text in [(before, "before"), (after, "after")]:
        [message] = result["response"]["messages"]
        assert (message["data"], result["time"]) == (text, 0.25)
        assert "diagnostics" not in result
    assert died["error"] == "Lean REPL command failed: Lean failed twice: killed"
    assert memory["error"] == ("Lean REPL command failed: the file used up its memory")
    shown, admitted = flood["response"]["messages"]
    assert shown["severity"] == "info"
    assert admitted["severity"] == "error"
    assert "errors or warnings are missing" in admitted["data"]


def test_lean_that_cannot_start_is_500(tmp_path):
    broken = tmp_path / "broken"
    broken.touch()
    with Server.fake(broken=str(broken)) as server:
        body = {"snippets": [{"id": "a", "code": "x"}]}
        expected = (500, {"detail": "Lean cannot be started"})
        assert server.post("/api/check", body) == expected
        broken.unlink()
        assert server.post("/api/check", body)[0] == 200
