"""What one host says of itself."""

import platform
import shutil
import socket
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib import metadata

import jax

import fdjax
from fdjax.doctor import try_lean
from fdjax.errors import FdjaxError
from fdjax.lean.sandbox.machine import available_memory_mb
from fdjax.pod.options import DoctorOptions

__all__ = ["HostFacts", "facts_of_host"]

_ANSWER_S = 10.0
"""Time for an answer of the endpoint, seconds."""


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """All of it text and numbers, to be sent to the other hosts."""

    host: str
    """Its name."""
    fdjax: str
    python: str
    jax: str
    libtpu: str
    """Version of the TPU's runtime; a dash where it is not installed."""
    memory_gb: float
    """That is free, in 10^9 bytes."""
    disk_gb: float
    """Free on the disk of temporary files, in 10^9 bytes."""
    lean: str
    """What Lean said of a true and of a false theorem."""
    lean_works: bool
    endpoint: str
    """Empty, or why the endpoint was not reached."""


def facts_of_host(options: DoctorOptions) -> HostFacts:
    """Looks at this host; Lean takes seconds, Mathlib up to a minute."""
    lean_works, lean = _lean(options)
    return HostFacts(
        host=socket.gethostname(),
        fdjax=fdjax.__version__,
        python=platform.python_version(),
        jax=jax.__version__,
        libtpu=_version("libtpu"),
        memory_gb=round(available_memory_mb() * 1.048576e-3, 1),
        disk_gb=round(shutil.disk_usage(tempfile.gettempdir()).free / 1e9, 1),
        lean=lean,
        lean_works=lean_works,
        endpoint=_unreached(options.endpoint) if options.endpoint else "",
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "—"


def _lean(options: DoctorOptions) -> tuple[bool, str]:
    """Whether it works, and what it said; the other hosts wait for either."""
    try:
        return try_lean(options.backend_config(), header=options.header)
    except (FdjaxError, OSError) as error:
        return False, str(error)


def _unreached(address: str) -> str:
    """Why a server gives no answer at all; any answer will do, a refusal too."""
    try:
        with urllib.request.urlopen(address, timeout=_ANSWER_S):
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        return str(error)
