"""Processes that make the same calls sample as one process does.

Ten seconds of processor time: two processes start JAX, and compile.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from fdjax.sharding import make_mesh
from sampling.one_process import work

TESTS = Path(__file__).parents[1]


def test_two_processes_draw_the_same_tokens():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "4",
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    }
    program = [sys.executable, str(TESTS / "sampling" / "one_process.py")]
    processes = [
        subprocess.Popen(
            [*program, str(number), "2", str(port)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, stderr) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, stderr[-3000:]
    want = work(make_mesh(data=2, fsdp=2, tensor=2))
    for stdout, _ in outputs:
        assert json.loads(stdout.splitlines()[-1]) == want
