"""Other people's libraries, each in an environment of its own."""

import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

__all__ = ["peer_python"]


def peer_python(name: str, requirements: Sequence[str]) -> Path:
    """The Python of an environment that holds `requirements`; made once and kept.

    Args:
      name: what to call the environment.
      requirements: pinned distributions, as pip takes them.

    Raises:
      subprocess.CalledProcessError: pip cannot install them.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = "{}.{}".format(*sys.version_info[:2])
    digest = hashlib.sha256("\n".join([version, *requirements]).encode()).hexdigest()
    folder = base / "fdjax" / "benchmarks" / f"{name}-{digest[:12]}"
    python = folder / "bin" / "python"
    ready = folder / "READY"
    if not ready.exists():
        print(f"Installing {' '.join(requirements)} in {folder}", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
        subprocess.run([*pip, "--quiet", *requirements], check=True)
        ready.touch()
    return python
