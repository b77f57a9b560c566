"""The command: what it refuses, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from fdjax import cli
from fdjax.errors import ConfigError
from fdjax.serve import ServeConfig
from lean.standin import kimina as standin
from lean.standin.kimina import KiminaStandIn
from serving import ROOT, Server, is_running, wait_until

SLOW = "theorem s : (List.range 90000).foldl (· + ·) 0 = 3 := by decide +kernel"
VERY_SLOW = SLOW.replace("90000", "4000000")


def refusal(arguments, capsys, backend="fake"):
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = [signal.getsignal(number) for number in numbers]
    try:
        with pytest.raises(SystemExit) as stop:
            cli.main(["serve", "--backend", backend, *arguments])
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "lean.example"])
def test_others_need_a_token(host, capsys):
    assert "expected a token for a host" in refusal(["--host", host], capsys)


def test_tokens_are_not_guessed(tmp_path, capsys, monkeypatch):
    empty = tmp_path / "token"
    empty.write_text("\n")
    assert "got nothing" in refusal(["--token-file", str(empty)], capsys)
    missing = str(tmp_path / "missing")
    assert "expected a token in " in refusal(["--token-file", missing], capsys)
    empty.write_bytes(b"\xff")
    assert "expected a token in " in refusal(["--token-file", str(empty)], capsys)
    monkeypatch.delenv("NO_TOKEN", raising=False)
    assert "NO_TOKEN" in refusal(["--token-env", "NO_TOKEN"], capsys)
    both = ["--token-file", str(empty), "--token-env", "NO_TOKEN"]
    assert "got both" in refusal(both, capsys)


@pytest.mark.parametrize("port", ["-1", "65536", "99999"])
def test_a_port_is_in_range(port, capsys):
    expected = f"--port to be an integer from 0 to 65535, got {port}"
    assert expected in refusal(["--port", port], capsys)


def test_a_port_in_use_is_an_error(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        said = refusal(["--port", port], capsys)
    assert f"expected to listen on 127.0.0.1, port {port}, got: " in said
    assert "in use" in said
    assert "choose another --port" in said


@pytest.mark.parametrize("host", ["no-such-host.invalid", "é" * 70, "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_an_error(host, capsys):
    said = refusal(["--insecure", "--port", "0", "--host", host], capsys)
    assert f"expected to listen on {host}, port 0, got: " in said


def test_no_memory_is_not_the_default(capsys):
    # With a port that is refused later, so that no mistake begins to serve.
    said = refusal(["--memory-mb", "0", "--port", "-1"], capsys)
    assert "expected Limits.memory_mb" in said
    assert "got 0" in said


@pytest.mark.parametrize(
    ("backend", "arguments", "words"),
    [
        ("remote", [], "expected --url, got nothing"),
        ("fake", ["--url", "http://h"], "expected no --url"),
        ("fake", ["--backend-token-env", "X"], "expected no --backend-token-env"),
        (
            "kimina",
            ["--url", "http://h", "--backend-token-env", "NO_TOKEN"],
            "leave --backend-token-env out",
        ),
        ("kimina", ["--url", "h"], "got 'h'; correct the address"),
    ],
)
def test_options_of_another_server(backend, arguments, words, capsys, monkeypatch):
    monkeypatch.delenv("NO_TOKEN", raising=False)
    arguments = ["--port", "0", *arguments]
    assert words in refusal(arguments, capsys, backend)


def test_a_server_of_a_server_of_a_server():
    remote = ["--backend", "remote", "--workers", "2", "--timeout", "10", "--url"]
    item = {"name": "t", "statement": "theorem t : True"}
    proofs = ["trivial", "no", "die", "#eval 1", "trivial -- again"]
    items = [item | {"proof": proof} for proof in proofs]
    with (
        Server.fake(server={"token": "last"}, identity="fake/1") as last,
        Server.command(
            *remote, last.url, "--backend-token-env", "LAST", LAST="last"
        ) as middle,
        Server.command(*remote, middle.url) as first,
    ):
        status, answer = first.post("/v1/verify", {"items": items})
        assert status == 200
        found = [verdict["status"] for verdict in answer["verdicts"]]
        assert found == ["verified", "rejected", "crashed", "unsafe", "verified"]
        assert '"identity":"fake/1"' in first.get("/v1/identity")[1]
        snippets = {"snippets": [{"id": "a", "code": "a file"}]}
        _, answer = first.post("/api/check", snippets)
        [message] = answer["results"][0]["response"]["messages"]
        assert message["data"] == "a file"


def test_a_server_of_a_kimina_server():
    script = Path(standin.__file__).with_name("scripted_repl.py")
    item = {"name": "t", "statement": "theorem t : True", "proof": "trivial"}
    with (
        KiminaStandIn([sys.executable, str(script)], token="theirs") as kimina,
        Server.command(
            *("--backend", "kimina", "--workers", "2", "--url", kimina.url),
            *("--backend-token-env", "THEIRS"),
            THEIRS="theirs",
        ) as server,
    ):
        _, answer = server.post("/v1/verify", {"items": [item]})
        assert answer["verdicts"][0]["status"] == "verified"
        assert kimina.url in server.get("/v1/identity")[1]


@pytest.mark.parametrize(
    "fields",
    [
        {"token": " "},
        {"token": b"secret"},
        {"trust_headers": "false"},
        {"max_items": 0},
        {"max_body_bytes": 10},
        {"max_pending": 10},
        {"retry_after_s": 0},
        {"unhealthy_after_s": -1.0},
        {"unhealthy_after_s": float("nan")},
        {"max_items": 1.5},
    ],
)
def test_settings_that_make_no_sense(fields):
    with pytest.raises(ConfigError, match=r"expected ServeConfig\."):
        ServeConfig(**fields)


def test_the_token_is_not_shown():
    assert "secret" not in repr(ServeConfig(token="secret"))


def test_a_token_file_and_a_free_port(tmp_path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    options = ["--backend", "fake", "--token-file", str(token)]
    with Server.command(*options) as server:
        body = {"snippets": [{"id": "a", "code": "x"}]}
        assert server.post("/api/check", body)[0] == 401
        key = {"Authorization": "Bearer secret"}
        assert server.post("/api/check", body, headers=key)[0] == 200
        assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_signals_end_it_well(number):
    with Server.command("--backend", "fake") as server:
        assert server.stop(number) == 0
        assert "Traceback" not in "".join(server.output)


def test_what_runs_is_finished_and_nothing_stays(lean):
    with Server.command("--workers", "1") as server:
        answers = []
        request = threading.Thread(
            target=lambda: answers.append(
                server.post(
                    "/api/check",
                    {"snippets": [{"id": "a", "code": SLOW}], "timeout": 2},
                )
            )
        )
        request.start()
        assert wait_until(lambda: server.metric("fdjax_pending_items") == 1)
        below = server.children()
        assert below
        begin = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: refuses(server), 5)
        request.join(20)
        assert server.process.wait(20) == 0
        assert time.monotonic() - begin < 10
    [(status, answer)] = answers
    assert status == 200
    assert "timed out in 2.0 seconds" in answer["results"][0]["error"]
    assert not any(map(is_running, below))


def test_what_does_not_finish_in_time_is_ended(lean):
    with Server.command("--workers", "1", "--drain", "1") as server:
        snippets = [{"id": str(i), "code": f"{VERY_SLOW}\n-- {i}"} for i in range(3)]
        request = threading.Thread(
            target=attempt, args=(server, {"snippets": snippets, "timeout": 50})
        )
        request.start()
        assert wait_until(lambda: server.metric("fdjax_pending_items") == 3)
        below = server.children()
        assert below
        assert server.stop(timeout=15) == 0
        request.join(10)
        assert not request.is_alive()
    assert not any(map(is_running, below))


def test_a_worker_that_is_killed_is_replaced_and_dies_with_its_server(lean):
    with Server.command("--workers", "1") as server:
        first = server.children()
        for process in first:
            os.kill(process, signal.SIGKILL)
        body = {"snippets": [{"id": "a", "code": "example : 1 = 1 := rfl"}]}
        _, answer = server.post("/api/check", body)
        assert answer["results"][0]["response"] == {"env": 0}
        assert server.metric("fdjax_worker_restarts_total") == 1
        below = server.children()
        assert below
        assert not set(below) & set(first)
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait()
        assert wait_until(lambda: not any(map(is_running, below)), 10)


@pytest.mark.parametrize("package", ["fastapi", "prometheus_client"])
def test_a_missing_package_is_named(package):
    program = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "from fdjax.cli import main\n"
        "main(['serve', '--backend', 'fake'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, package],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2
    assert f"needs the package {package}" in done.stderr
    assert "pip install fdjax[serve]" in done.stderr


def test_the_command_brings_no_jax():
    program = "import sys, fdjax.cli, fdjax.serve.app; sys.exit('jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0


def refuses(server):
    try:
        socket.create_connection((server.host, server.port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def attempt(server, body):
    with suppress(OSError):  # the server ends in the middle of it
        server.request("POST", "/api/check", body)
