"""The command: what it refuses, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from fdjax import cli
from fdjax.errors import ConfigError
from fdjax.serve import ServeConfig
from serving import ROOT, Server, is_running, wait_until

SLOW = "theorem s : (List.range 90000).foldl (· + ·) 0 = 3 := by decide +kernel"
VERY_SLOW = SLOW.replace("90000", "4000000")


def refusal(arguments, capsys):
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = [signal.getsignal(number) for number in numbers]
    try:
        with pytest.raises(SystemExit) as stop:
            cli.main(["serve", "--backend", "fake", *arguments])
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
    assert "No such file" in refusal(["--token-file", missing], capsys)
    monkeypatch.delenv("NO_TOKEN", raising=False)
    assert "NO_TOKEN" in refusal(["--token-env", "NO_TOKEN"], capsys)
    both = ["--token-file", str(empty), "--token-env", "NO_TOKEN"]
    assert "got both" in refusal(both, capsys)


def test_a_port_in_use_is_an_error(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert "in use" in refusal(["--port", port], capsys)


@pytest.mark.parametrize(
    "fields",
    [
        {"token": " "},
        {"max_items": 0},
        {"max_body_bytes": 10},
        {"max_pending": 10},
        {"retry_after_s": 0},
        {"unhealthy_after_s": -1.0},
    ],
)
def test_settings_that_make_no_sense(fields):
    with pytest.raises(ConfigError, match="ServeConfig: expected"):
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
