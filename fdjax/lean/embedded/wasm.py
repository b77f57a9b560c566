"""The embedded Lean: a sandboxed Node.js process per worker."""

import json
from dataclasses import asdict
from pathlib import Path

from fdjax.errors import InstallError
from fdjax.lean.embedded.location import (
    HOST_DIR,
    PACKAGE_VERSION,
    TOOLCHAIN,
    default_target,
    host_version,
    installed,
    node_executable,
    node_folder,
    runtime_file,
)
from fdjax.lean.facts.backend import DEFAULT_LIMITS
from fdjax.lean.facts.policy import POLICY
from fdjax.lean.sandbox.checker import CheckerProcess
from fdjax.lean.sandbox.confinement import Confinement
from fdjax.lean.sandbox.process import Program

__all__ = ["WasmBackend"]

MOST_MEMORY_MB = 2048
"""What a 32-bit WebAssembly memory is given at most."""
ENGINE_MB = 2048
"""Private memory of Node.js besides Lean's, reserved rather than used."""
MOST_HEAP = 0.75
"""A worker whose heap has grown past this part of its memory is replaced."""


class WasmBackend(CheckerProcess):
    """Lean 4.28 with Init and Std, compiled to WebAssembly.

    Inside the sandbox of every checker is that of Node.js: the process can read
    only the installation; Lean inside sees only its library.
    """

    def __init__(
        self,
        install_dir: Path | None = None,
        *,
        grace_s: float = 0.3,
        start_timeout_s: float = 120.0,
        confinement: Confinement | None = None,
    ) -> None:
        """Prepare; `start` does the work and takes 2 to 3 s.

        Args:
          install_dir: what `install` returned; the user's cache by default.
          grace_s: time between Lean's own cancellation and a hard kill, seconds.
          start_timeout_s: longest wait for the process to become ready, seconds.
          confinement: kind of sandbox; the strongest that works here by default.
        """
        super().__init__(
            grace_s=grace_s,
            start_timeout_s=start_timeout_s,
            confinement=confinement,
            most_memory_mb=MOST_MEMORY_MB,
            most_heap=MOST_HEAP,
        )
        self._install_dir = install_dir

    @property
    def identity(self) -> str:
        """Toolchain, package version and a hash of our host's files."""
        return f"{TOOLCHAIN}/{PACKAGE_VERSION}/{host_version()}"

    def _program(self) -> Program:
        folder = installed(self._install_dir)
        if folder is None:
            where = self._install_dir or default_target()
            raise InstallError(
                f"The embedded Lean was expected in {where} and is not there, or is "
                "of another version; run `fdjax lean install`, or call "
                "fdjax.lean.install()."
            )
        folder = folder.resolve()
        settings = {
            "install": str(folder),
            "runtime": str(runtime_file(folder)),
            "memory_mb": self._memory_mb,
            "heartbeats": DEFAULT_LIMITS.heartbeats,
            "grace_ms": self._grace_s * 1000,
            "policy": asdict(POLICY),
        }
        command = [
            str(node_executable()),
            # A function is validated when it is compiled, with its first call.
            "--wasm-lazy-validation",
            "--permission",
            "--disable-warning=SecurityWarning",
            f"--allow-fs-read={folder}",
            f"--allow-fs-read={HOST_DIR.resolve()}",
            "--allow-worker",
            str(HOST_DIR.resolve() / "main.js"),
            json.dumps(settings),
        ]
        return Program(
            command=command,
            folder=folder,
            readable=[folder, HOST_DIR.resolve(), node_folder()],
            memory_mb=self._memory_mb + ENGINE_MB,
            remedy=f"remove {folder} and run `fdjax lean install`",
        )
