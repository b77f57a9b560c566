"""`fdjax doctor --pod` on two processes of this machine, as on two hosts."""

import http.server
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fdjax.lean import install

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def doctors(*own, devices=(2, 2)):
    """Exit codes and words of both; `own` are the flags of each."""
    meeting = f"127.0.0.1:{free_port()}"
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "fdjax", "doctor", "--pod"),
                *("--processes.coordinator", meeting, "--processes.count", "2"),
                *("--processes.index", str(index), *map(str, own[index])),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                **{"JAX_PLATFORMS": "cpu", "COLUMNS": "500", "PYTHONPATH": str(ROOT)},
                "JAX_NUM_CPU_DEVICES": str(devices[index]),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        said = [process.communicate(timeout=900) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for _, err in said:
        assert "Traceback" not in err, err
    # Gloo, which CPUs use for collectives, counts its peers on standard output.
    words = [re.sub(r"^\[Gloo\].*\n", "", out, flags=re.M) for out, _ in said]
    return [process.returncode for process in processes], words


class Refusing(http.server.BaseHTTPRequestHandler):
    """Knows no request, which is an answer, too."""

    def log_message(self, format, *args):
        pass


@pytest.fixture
def writer():
    """Address of a server that refuses everybody."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_hosts_that_are_well_and_then_one_that_is_not(tmp_path, writer):
    """Both cases in processes that import JAX: 20 s of processor time."""
    install()
    runs, flags = tmp_path / "runs", ("--endpoint", writer)
    codes, (first, second) = doctors(*[("--runs", runs, *flags)] * 2)
    assert codes == [0, 0], first
    assert "2 × cpu on each host" in first
    assert "verified and rejected" in first
    assert "the same folder, and all hosts write to it" in first
    assert f"{writer} answers" in first
    assert "fail" not in first
    assert second == ""
    assert list(runs.iterdir()) == []

    nowhere = f"http://127.0.0.1:{free_port()}/v1"
    other = ("--runs", tmp_path / "elsewhere", "--endpoint", nowhere)
    codes, (first, second) = doctors(("--runs", runs, *flags), other)
    assert codes == [1, 1]
    assert "host 1: not the same folder: host 0 has others" in first
    assert "Connection refused" in first
    assert first.count("fail") == 2
    assert second == ""


def test_hosts_with_other_numbers_of_devices(tmp_path):
    codes, (first, _) = doctors((), (), devices=(2, 1))
    assert codes == [1, 1]
    assert "2 × cpu on host 0; 1 × cpu on host 1" in first
