"""The sandbox in which a Lean process of ours runs.

| | bubblewrap | landlock | seccomp | rlimits |
| --- | --- | --- | --- | --- |
| reads only what it is given | yes | yes | no | no |
| changes no file | yes | yes | yes | writes none, may remove |
| opens no socket | yes | yes | yes | no |
| starts no process, signals none outside | yes | yes | yes | no |
| memory, CPU time, empty environment | yes | yes | yes | yes |
| ends with the process that started it | yes | yes | yes | yes |

All but the last install a system-call filter as well; bubblewrap adds namespaces of its
own for files, network and processes, landlock the kernel's rules for files. Names,
sizes and owners of files outside are hidden by bubblewrap alone. A confined program may
start threads, but no process: run `lean` itself, not `lake` or a shell around it.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from fdjax.errors import ConfigError

__all__ = ["Confinement", "best_confinement", "confined"]

_log = logging.getLogger(__name__)

Confinement = Literal["bubblewrap", "landlock", "seccomp", "rlimits"]
"""How a process is confined, strongest first."""

LAUNCHER = Path(__file__).with_name("confine.py")
SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/ssl/openssl.cnf",
)
"""What programs and their libraries read as they start, where the system has it."""
NOBODY = "65534"
PROBE_S = 10.0
PROBE_MB = 512
REMEDY = (
    "Install bubblewrap (`apt install bubblewrap`), or use a Linux kernel 5.13 or "
    "later with Landlock, on x86_64 or aarch64"
)

_probing = threading.Lock()


def best_confinement() -> Confinement:
    """The strongest confinement that works here, found once by trying (about 30 ms).

    Logs a warning where files cannot be hidden from the confined process.
    """
    with _probing:
        return _best()


def confined(
    command: Sequence[str],
    *,
    readable: Sequence[Path],
    memory_mb: int,
    cpu_s: int | None = None,
    environment: Mapping[str, str] = {},
    confinement: Confinement | None = None,
) -> list[str]:
    """The command line that runs `command` confined.

    Start it from the process that asked for it, with `env={}`, with pipes for its
    streams, and as a group of its own (`start_new_session=True`), so that killing the
    group ends all of it. Standard streams are passed on untouched. The working folder
    is kept where it can be read. When the asking process ends in any way, so does the
    command, within half a second; the thread that started it may end earlier.

    The process that is started is a supervisor of 12 MB and not the command itself;
    its exit status is the command's, 128 + n where signal n ended the command, 127
    where the command cannot be started (standard error says why), and 125 where the
    confinement fails.

    Args:
      command: the program, an absolute path, and its arguments.
      readable: files and folders that it may read and execute, besides the system's
        libraries and programs in /usr, /lib and /bin.
      memory_mb: limit of its writable private memory, in MiB; every thread's stack
        counts (8 MiB), mapped library files do not.
      cpu_s: limit of its CPU time over its whole life, in seconds; None for no limit.
      environment: all environment variables that it sees; bubblewrap adds PWD.
      confinement: how; the strongest that works here by default.

    Raises:
      ConfigError: the program is no absolute path, or a readable path is missing.
    """
    if not command or not os.path.isabs(command[0]):
        raise ConfigError(
            "confined: expected a command that begins with an absolute path, got "
            f"{list(command)[:1]}; find the program with shutil.which()."
        )
    paths = _existing(readable)
    confinement = confinement or best_confinement()
    settings = {
        "confinement": confinement,
        "parent": os.getpid(),
        "memory_mb": memory_mb,
        "cpu_s": cpu_s,
        "environment": dict(environment),
        "readable": paths,
        "bubblewrap": (
            _bubblewrap(paths, environment) if confinement == "bubblewrap" else []
        ),
    }
    launcher = [sys.executable, "-I", "-S", str(LAUNCHER)]
    return [*launcher, json.dumps(settings), *command]


def _existing(readable: Sequence[Path]) -> list[str]:
    """The system's paths and the given ones, with what they are links to."""
    paths = [path for path in SYSTEM if os.path.exists(path)]
    for path in readable:
        if not path.exists():
            raise ConfigError(
                f"confined: expected an existing file or folder in readable, got {path}"
                "; correct or remove it."
            )
        # Programs such as Node.js resolve links before they open a file.
        paths += dict.fromkeys([str(path.absolute()), str(path.resolve())])
    return paths


def _bubblewrap(paths: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    # A root folder that is empty but for these, and read-only in the end.
    options = ["--unshare-all", "--unshare-user", "--die-with-parent"]
    options += ["--uid", NOBODY, "--gid", NOBODY, "--cap-drop", "ALL"]
    for path in paths:
        options += ["--ro-bind", path, path]
    for device in ("/dev/null", "/dev/urandom"):
        options += ["--dev-bind", device, device]
    # Lean finds its library through /proc/self/exe.
    options += ["--proc", "/proc", "--remount-ro", "/"]
    for name, value in environment.items():
        options += ["--setenv", name, value]
    return [shutil.which("bwrap") or "/usr/bin/bwrap", *options]


@cache
def _best() -> Confinement:
    candidates: tuple[Confinement, ...] = ("bubblewrap", "landlock", "seccomp")
    for candidate in candidates:
        if _works(candidate):
            _log.debug("Lean processes are confined by %s", candidate)
            if candidate == "seccomp":
                _log.warning(
                    "Lean processes can read every file that this user can read "
                    "(network, writing and new processes are refused). %s.",
                    REMEDY,
                )
            return candidate
    _log.warning(
        "Lean processes run with limits of memory and CPU time only: a submission that "
        "escapes from Lean can read files, use the network and start processes. %s.",
        REMEDY,
    )
    return "rlimits"


def _works(confinement: Confinement) -> bool:
    command = confined(
        ["/bin/sh", "-c", "exit 0"],
        readable=(),
        memory_mb=PROBE_MB,
        confinement=confinement,
    )
    try:
        finished = subprocess.run(
            command,
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            timeout=PROBE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.debug("no %s: %s", confinement, error)
        return False
    if finished.returncode != 0:
        _log.debug("no %s: %s", confinement, finished.stderr.decode(errors="replace"))
    return finished.returncode == 0
