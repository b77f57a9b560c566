"""Servers in processes of their own, for tests."""

import http.client
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import fdjax

ROOT = Path(fdjax.__file__).parent.parent
FAKE = Path(__file__).parent / "serve" / "fake_server.py"
READY_S = 120.0


class Server:
    """A running server; a context manager that kills it if it is still there."""

    def __init__(self, command, environment=None):
        self.output = []
        self._found = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {}),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._found.get(timeout=READY_S)
        assert self.url, "".join(self.output)
        self.host, self.port = self.url.removeprefix("http://").split(":")
        self.port = int(self.port)

    @classmethod
    def fake(cls, **settings):
        """`make_app` around a backend that does what the text says."""
        return cls([str(FAKE), json.dumps(settings)])

    @classmethod
    def command(cls, *arguments, **environment):
        """The real `fdjax serve` on a free port."""
        program = "import sys; from fdjax.cli import main; main(sys.argv[1:])"
        return cls(
            ["-c", program, "serve", "--port", "0", *arguments], environment or None
        )

    @property
    def pid(self):
        return self.process.pid

    def children(self):
        """Process ids of everything below the server."""
        return descendants(self.pid)

    def request(self, method, path, body=None, headers=None, timeout=60.0):
        """Status, headers and body, as bytes, of one request on a connection."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            if not isinstance(body, bytes | None):
                body = json.dumps(body).encode()
            sent = {"Content-Type": "application/json"} | (headers or {})
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def post(self, path, body, **options):
        """Status and JSON of one POST."""
        status, _, content = self.request("POST", path, body, **options)
        return status, json.loads(content)

    def get(self, path, **options):
        """Status and text of one GET."""
        status, _, content = self.request("GET", path, **options)
        return status, content.decode()

    def metric(self, name):
        """The value of one line of `/metrics`."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        raise AssertionError(f"no metric {name}")

    def stop(self, number=signal.SIGTERM, timeout=60.0):
        """Send a signal, return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()
        self._reader.join()
        self.process.stdout.close()

    def _read(self):
        for line in self.process.stdout:
            self.output.append(line)
            if found := re.search(r"Listening on (http://\S+)", line):
                self._found.put(found[1])
        self._found.put("")


def descendants(pid):
    """Process ids of everything below a process."""
    found, left = [], [pid]
    while left:
        folder = Path(f"/proc/{left.pop()}/task")
        for task in folder.glob("*/children"):
            with suppress(FileNotFoundError, ProcessLookupError):
                below = [int(child) for child in task.read_text().split()]
                found += below
                left += below
    return found


def is_running(pid):
    """Whether a process is there and not only waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(condition, seconds=20.0):
    """Ask until it holds; whether it does in the end."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()
