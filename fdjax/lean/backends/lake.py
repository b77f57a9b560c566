"""A built Lake project: where its Lean and its libraries are, and what they are."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fdjax.errors import BackendError, InstallError

__all__ = ["Toolchain", "toolchain"]

LAKE_TIMEOUT_S = 300.0
"""Lake may compile the project's configuration first."""
PROJECT_FILES = (
    "lean-toolchain",
    "lake-manifest.json",
    "lakefile.toml",
    "lakefile.lean",
)
"""What decides a project's Lean, its options and its dependencies."""


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """What `lake env` says about a project."""

    lean: Path
    """The compiler."""
    sysroot: Path
    """The toolchain's folder."""
    folders: tuple[Path, ...]
    """Folders of compiled modules, without the toolchain's own."""
    programs: str
    """The variable PATH, in which the project's own programs come first."""
    version: str
    """Lean's version, and a hash of what the project consists of."""

    @property
    def readable(self) -> tuple[Path, ...]:
        """All folders that Lean must read."""
        return (self.sysroot, *self.folders)


@cache
def toolchain(project: Path, lake: str) -> Toolchain:
    """Ask Lake, once per process: build the project before.

    Args:
      project: folder with the lakefile, resolved.
      lake: name or path of the `lake` program, which runs outside any sandbox.

    Raises:
      InstallError: there is no `lake`, or the folder is no Lake project.
      BackendError: Lake fails.
    """
    values = _lake_environment(project, lake)
    sysroot = Path(values["LEAN_SYSROOT"])
    paths = [project / part for part in values["LEAN_PATH"].split(":") if part]
    folders = tuple(path for path in paths if path.exists())
    lean = sysroot / "bin" / "lean"
    version = _run([str(lean), "--version"], project).strip()
    return Toolchain(
        lean=lean,
        sysroot=sysroot,
        folders=folders,
        programs=values.get("PATH", ""),
        version=f"{version}/{_fingerprint(project, folders)}",
    )


def _fingerprint(project: Path, folders: Iterable[Path]) -> str:
    """A hash of the project's settings and of its own compiled modules.

    What lies in `.lake/packages` is left out: the manifest names its revisions.
    """
    digest = hashlib.sha256()
    for name in PROJECT_FILES:
        path = project / name
        digest.update(path.read_bytes() if path.exists() else b"\0")
    packages = project / ".lake" / "packages"
    for folder in folders:
        if folder.is_relative_to(packages):
            continue
        for module in sorted(folder.rglob("*.olean")):
            # Lake keeps a hash beside what it builds.
            known = module.with_name(f"{module.name}.hash")
            content = (known if known.exists() else module).read_bytes()
            digest.update(str(module.relative_to(folder)).encode())
            digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:12]


def _lake_environment(project: Path, lake: str) -> Mapping[str, str]:
    """The variables that `lake env` sets."""
    if shutil.which(lake) is None:
        raise InstallError(
            f"A Lake project needs Lake: expected the program {lake!r} on PATH and "
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
