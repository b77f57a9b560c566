"""Native Lean: a Lake project's own toolchain, library and dependencies."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fdjax.errors import BackendError, InstallError
from fdjax.lean.location import HOST_DIR
from fdjax.lean.process import CheckerProcess, Program
from fdjax.lean.safety import POLICY
from fdjax.lean.sandbox import Confinement

__all__ = ["NativeBackend"]

CHECKER = HOST_DIR / "checker.lean"
THREADS_MB = 2048
"""Private memory besides Lean's heap: stacks and arenas, reserved rather than used."""
LAKE_TIMEOUT_S = 300.0
"""Lake may compile the project's configuration first."""


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """What `lake env` says about a project."""

    lean: Path
    """The compiler."""
    search_path: tuple[Path, ...]
    """Folders of compiled modules, the project's first."""
    readable: tuple[Path, ...]
    """All folders that the compiler must read."""
    version: str
    """Lean's version, and a hash of what the project depends on."""


class NativeBackend(CheckerProcess):
    """A Lake project, elaborated by its own Lean through a checker of ours.

    The checker is one Lean program that `lean --run` interprets: it imports a header
    once and checks many proofs on it. What it accepts, the kernel has checked twice.
    Build the project first; nothing is built or downloaded here.
    """

    def __init__(
        self,
        project: Path,
        *,
        lake: str = "lake",
        recycle_after: int = 2000,
        grace_s: float = 0.3,
        start_timeout_s: float = 300.0,
        confinement: Confinement | None = None,
    ) -> None:
        """Prepare; `start` does the work.

        Args:
          project: folder with the lakefile.
          lake: name or path of the `lake` program.
          recycle_after: requests after which a process is replaced.
          grace_s: time between Lean's own cancellation and a hard kill, seconds.
          start_timeout_s: longest wait for the process to become ready, seconds.
          confinement: kind of sandbox; the strongest that works here by default.
        """
        super().__init__(
            grace_s=grace_s, start_timeout_s=start_timeout_s, confinement=confinement
        )
        self._project = Path(project).resolve()
        self._lake = lake
        self._recycle_after = recycle_after
        self._answered = 0

    @property
    def identity(self) -> str:
        """Lean's version, the project's dependencies and a hash of the checker.

        Raises:
          InstallError: there is no `lake`, or the folder is no Lake project.
        """
        digest = hashlib.sha256(CHECKER.read_bytes()).hexdigest()[:12]
        return f"{_toolchain(self._project, self._lake).version}/{digest}"

    def _program(self) -> Program:
        toolchain = _toolchain(self._project, self._lake)
        self._answered = 0
        settings = {
            "search_path": [str(folder) for folder in toolchain.search_path],
            "policy": asdict(POLICY),
            "watchdog": True,
        }
        command = [str(toolchain.lean), "--run", str(CHECKER), json.dumps(settings)]
        return Program(
            command=command,
            folder=self._project,
            readable=[*toolchain.readable, HOST_DIR],
            memory_mb=self._memory_mb + THREADS_MB,
        )

    def _remedy(self) -> str:
        return f"run `fdjax lean selftest --project {self._project}`"

    def _is_worn(self, answer: dict[str, Any]) -> bool:
        self._answered += 1
        return self._answered >= self._recycle_after


@cache
def _toolchain(project: Path, lake: str) -> Toolchain:
    values = _lake_environment(project, lake)
    sysroot = Path(values["LEAN_SYSROOT"])
    paths = [project / part for part in values["LEAN_PATH"].split(":") if part]
    folders = [path for path in paths if path.exists()]
    lean = sysroot / "bin" / "lean"
    version = _run([str(lean), "--version"], project).strip()
    depends = hashlib.sha256()
    for name in ("lean-toolchain", "lake-manifest.json"):
        path = project / name
        depends.update(path.read_bytes() if path.exists() else b"\0")
    return Toolchain(
        lean=lean,
        search_path=(*folders, sysroot / "lib" / "lean"),
        readable=(sysroot, *folders),
        version=f"{version}/{depends.hexdigest()[:12]}",
    )


def _lake_environment(project: Path, lake: str) -> Mapping[str, str]:
    """The variables that `lake env` sets; Lake itself runs outside any sandbox."""
    if shutil.which(lake) is None:
        raise InstallError(
            f"The native backend needs Lake: expected the program {lake!r} on PATH and "
            "found none; install Lean with elan, or use the embedded backend."
        )
    if not any(
        (project / name).exists() for name in ("lakefile.toml", "lakefile.lean")
    ):
        raise InstallError(
            f"Expected a Lake project in {project}, got a folder without lakefile.toml "
            "or lakefile.lean; name the project's folder."
        )
    lines = _run([lake, "env"], project).splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    missing = {"LEAN_PATH", "LEAN_SYSROOT"} - values.keys()
    if missing:
        raise BackendError(
            f"`{lake} env` in {project} was expected to name {sorted(missing)}, got "
            f"{sorted(values)}; update the project's toolchain."
        )
    return values


def _run(command: Sequence[str], project: Path) -> str:
    try:
        result = subprocess.run(
            command,
            cwd=project,
            capture_output=True,
            text=True,
            timeout=LAKE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(
            f"`{' '.join(command)}` was expected to run in {project}, got {error}; "
            "build the project with `lake build` first."
        ) from error
    if result.returncode != 0:
        raise BackendError(
            f"`{' '.join(command)}` was expected to succeed in {project}, got status "
            f"{result.returncode}: {result.stderr[-500:].strip()}; build the project "
            "with `lake build` first."
        )
    return result.stdout
