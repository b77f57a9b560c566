"""Processes of one command on this machine, which share eight devices between them."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEETING = "MEETING"
"""Where the command says how the processes meet."""


def started(count, command, **environment):
    """The processes, on their way."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, *_met(command, f"127.0.0.1:{port}", count, index)],
            cwd=ROOT,
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(8 // count),
                "PYTHONPATH": os.pathsep.join(
                    [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
                ),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]


def _met(command, address, count, index):
    meeting = [
        *("--processes.coordinator", address, "--processes.count", str(count)),
        *("--processes.index", str(index)),
    ]
    place = command.index(MEETING)
    return [*command[:place], *meeting, *command[place + 1 :]]


def ended(processes, seconds=400):
    """Exit code and what was said of each, once all have ended."""
    end = time.monotonic() + seconds
    try:
        said = [
            process.communicate(timeout=max(1, end - time.monotonic()))[0]
            for process in processes
        ]
    finally:
        for process in processes:
            process.kill()
    return [
        (process.returncode, text)
        for process, text in zip(processes, said, strict=True)
    ]
