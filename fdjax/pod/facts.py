"""What one host says of itself."""

import platform
import shutil
import socket
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import jax

import fdjax
from fdjax.doctor import try_lean
from fdjax.errors import FdjaxError
from fdjax.files import cache_folder
from fdjax.lean.sandbox.machine import available_memory_mb
from fdjax.objects import local_folder, place
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
    """Free where a run writes and there is least, in 10^9 bytes."""
    disk: str
    """That folder."""
    lean: str
    """What Lean said of a true and of a false theorem."""
    lean_works: bool
    endpoint: str
    """Empty, or why the endpoint was not reached."""


def facts_of_host(options: DoctorOptions) -> HostFacts:
    """Looks at this host; Lean takes seconds, Mathlib up to a minute."""
    lean_works, lean = _lean(options)
    disk_gb, disk = _disk(options.runs)
    return HostFacts(
        host=socket.gethostname(),
        fdjax=fdjax.__version__,
        python=platform.python_version(),
        jax=jax.__version__,
        libtpu=_version("libtpu"),
        memory_gb=round(available_memory_mb() * 1.048576e-3, 1),
        disk_gb=disk_gb,
        disk=disk,
        lean=lean,
        lean_works=lean_works,
        endpoint=_unreached(options.endpoint) if options.endpoint else "",
    )


def _disk(runs: str) -> tuple[float, str]:
    """Least room of the folders that a run writes to, 10^9 bytes, and which that is.

    These are its own, in the user's cache where it is kept in an object store, that
    cache, and the folder of temporary files.
    """
    folders = [cache_folder(), Path(tempfile.gettempdir())]
    if runs:
        folders.insert(0, local_folder(place(runs)))
    usages = [(shutil.disk_usage(_there(folder)), folder) for folder in folders]
    # Where even the whole is nothing, a file system keeps no count.
    counted = [each for each in usages if each[0].total] or usages
    usage, folder = min(counted, key=lambda each: each[0].free)
    return round(usage.free / 1e9, 1), str(folder)


def _there(folder: Path) -> Path:
    """The folder, or what of its path is there before it is made."""
    folder = folder.absolute()
    return next(one for one in (folder, *folder.parents) if one.exists())


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
