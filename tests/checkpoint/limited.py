"""Processes that cannot write large files, and leave no halves of them to others."""

import os
import subprocess
import sys


def run_limited(code, **settings):
    """Runs code that limits the size of its files, as on a full disk.

    It writes neither bytecode nor compiled programs: Python and JAX would keep what is
    cut off at the limit, and every later process would read it.
    """
    return subprocess.run(
        [sys.executable, "-B", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "0"},
        **settings,
    )
