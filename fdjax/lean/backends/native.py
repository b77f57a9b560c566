"""Native Lean: a Lake project's own toolchain, library and dependencies."""

import json
from dataclasses import asdict
from pathlib import Path

from fdjax.lean.backends.lake import toolchain
from fdjax.lean.backends.program import program_file, program_version
from fdjax.lean.facts.policy import POLICY
from fdjax.lean.sandbox.checker import CheckerProcess
from fdjax.lean.sandbox.confinement import Confinement
from fdjax.lean.sandbox.process import Program

__all__ = ["NativeBackend"]

THREADS_MB = 2048
"""Private memory besides Lean's heap: stacks and arenas, reserved rather than used."""


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
            grace_s=grace_s,
            start_timeout_s=start_timeout_s,
            confinement=confinement,
            most_answers=recycle_after,
        )
        self._project = Path(project).resolve()
        self._lake = lake

    @property
    def identity(self) -> str:
        """Lean's version, hashes of the project as it was built and of the checker.

        Raises:
          InstallError: there is no `lake`, or the folder is no Lake project.
        """
        version = toolchain(self._project, self._lake).version
        return f"{version}/{program_version('project')}"

    def _program(self) -> Program:
        project = toolchain(self._project, self._lake)
        settings = {
            "search_path": [
                *map(str, project.folders),
                str(project.sysroot / "lib" / "lean"),
            ],
            "policy": asdict(POLICY),
            "watchdog": True,
        }
        checker = program_file()
        command = [str(project.lean), "--run", str(checker), json.dumps(settings)]
        return Program(
            command=command,
            folder=self._project,
            readable=[*project.readable, checker],
            memory_mb=self._memory_mb + THREADS_MB,
            remedy=f"run `fdjax lean selftest --project {self._project}`",
        )
