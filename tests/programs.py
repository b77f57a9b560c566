"""Python programs in processes of their own that print what they found, for tests."""

import json
import os
import subprocess
import sys


def found_by(program, *arguments, timeout_s, **environment):
    """The JSON value on the last line that a program prints.

    Args:
      program: path of the Python file; it imports what this process can.
      arguments: of its command line.
      timeout_s: what it may take, in seconds.
      environment: more variables.
    """
    path = os.pathsep.join(entry for entry in sys.path if entry)
    finished = subprocess.run(
        [sys.executable, str(program), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return json.loads(finished.stdout.splitlines()[-1])
