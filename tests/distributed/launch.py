"""Starts a program as several processes of one JAX cluster."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def launch(program, folder, count, *arguments):
    """What each process wrote; the processes share eight devices between them.

    Args:
      program: a file's path, or the name of one beside this file; it gets port, number
        of processes, its own index, the folder and the arguments, and writes
        `<index>.json` there.
      folder: for what they write.
      count: of processes.
      arguments: texts.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(8 // count),
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    }
    command = [sys.executable, str(TESTS / "distributed" / program), str(port)]
    processes = [
        subprocess.Popen(
            [*command, str(count), str(index), str(folder), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output[-4000:]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return [
        json.loads((folder / f"{index}.json").read_text()) for index in range(count)
    ]
