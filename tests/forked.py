"""Programs in processes of their own, without the seconds that importing JAX takes.

A nursery has imported what they import, and forks itself for each of them, before JAX
has looked for devices. Whatever a process can be told or suffer, a fork can, too:
environment, devices, files, signals and exit code are its own. Only what the C library
reads at its start is not, such as `MALLOC_ARENA_MAX`.

Processes that meet in collectives are no forks: on a loaded machine, two forks received
other bytes than were sent.
"""

import atexit
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
NURSERIES = 2
"""Two, so that a run and the one that resumes it differ in the order of their sets."""


class Program:
    """A running fork, with the verbs of `subprocess.Popen`."""

    def __init__(self, facts, output):
        self._facts, self._output = facts, output
        self.returncode = None
        self.pid = int(facts.readline())
        for file in (facts, output):
            weakref.finalize(self, file.close)

    def poll(self):
        """The exit code, once there is one."""
        if self.returncode is None and self._heard(0):
            self.wait()
        return self.returncode

    def wait(self, timeout=None):
        """The exit code; of a program that a signal ended, minus its number."""
        if self.returncode is None:
            if not self._heard(timeout):
                raise subprocess.TimeoutExpired("a forked program", timeout)
            self.returncode = int(self._facts.readline())
        return self.returncode

    def communicate(self, timeout=None):
        """Waits for the end: what was said, and nothing that was said apart."""
        self.wait(timeout)
        self._output.seek(0)
        return self._output.read().decode(errors="replace"), None

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def _heard(self, timeout):
        return select.select([self._facts], [], [], timeout)[0]


def start(command, *, environment=None, output=None):
    """Starts a program.

    Args:
      command: what follows `python`: a file, or `-m` and a module, and arguments.
      environment: all of it; by default that of this process.
      output: a binary file for what is said; by default `communicate` returns it.
    """
    request = {
        "command": [str(part) for part in command],
        "environment": dict(os.environ if environment is None else environment),
    }
    said = output or tempfile.TemporaryFile()  # noqa: SIM115 - read when all is said
    facts, theirs = os.pipe()
    try:
        _, asked = next(_nurseries())
        message = [json.dumps(request).encode()]
        socket.send_fds(asked, message, [said.fileno(), theirs])
    finally:
        os.close(theirs)
    # Without a buffer, `select` sees each line that nobody has read.
    return Program(open(facts, "rb", buffering=0), said)


@cache
def _nurseries():
    """One after the other, round and round; they end with this process."""
    nurseries = []
    for _ in range(NURSERIES):
        own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            nursery = subprocess.Popen(
                [sys.executable, ROOT / "tests" / "nursery.py", str(number)],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
                pass_fds=[number],
            )
        nurseries.append((nursery, own))
        atexit.register(_close, nursery, own)
    return itertools.cycle(nurseries)


def _close(nursery, asked):
    asked.close()
    nursery.wait()
