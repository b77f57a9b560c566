"""A backend with a process on this machine: confined, asked in JSON, replaced."""

import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fdjax.errors import BackendError
from fdjax.lean.facts.backend import (
    DEFAULT_LIMITS,
    CheckRequest,
    RawReport,
    RunRequest,
    WorkerDiedError,
)
from fdjax.lean.sandbox.child import Child, ChildLostError
from fdjax.lean.sandbox.confinement import Confinement, confined

__all__ = ["LeanProcess", "Program", "in_own_time", "read_object"]

LIFE_S = 3600.0
"""A process as old as this is replaced after its answer."""
FROM_OUTSIDE = ("killed", "stopped", "misspoke")
"""What a process that starts does not do by itself."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run."""

    command: Sequence[str]
    """The program and its arguments; an absolute path where it is confined."""
    folder: Path
    """Working directory."""
    remedy: str
    """What to do when it does not become ready."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """All the variables that it gets."""
    readable: Sequence[Path] | None
    """All it may read besides the system's own libraries; None for no sandbox."""
    memory_mb: int
    """Limit of its private memory in the sandbox, in MiB."""


class LeanProcess(ABC):
    """The part of a backend that is the same for every process on this machine.

    The process runs in the strongest sandbox of this machine (see
    `fdjax.lean.sandbox.confinement`), with no variables but its own, a session of its
    own and nothing but three pipes. The parent never waits longer than the limits
    allow.
    """

    def __init__(
        self,
        *,
        confinement: Confinement | None = None,
        most_memory_mb: int | None = None,
    ) -> None:
        """Prepare; `start` does the work.

        Args:
          confinement: kind of sandbox; the strongest that works here by default.
          most_memory_mb: what it can use of the memory that a request allows, in MiB;
            all of it by default.
        """
        self._confinement: Confinement | None = confinement
        self._most_memory_mb = most_memory_mb
        self._memory_mb = DEFAULT_LIMITS.memory_mb
        self._wall_s = LIFE_S
        self._born = 0.0
        self._child: Child | None = None

    @property
    @abstractmethod
    def identity(self) -> str:
        """Toolchain and checker: verdicts of equal identity are equal."""

    @abstractmethod
    def _program(self) -> Program:
        """What to run; may raise `InstallError`."""

    @abstractmethod
    def _make_ready(self) -> None:
        """Wait until it can check, or raise `ChildLostError`."""

    @abstractmethod
    def _elaborate(self, request: CheckRequest | RunRequest) -> RawReport:
        """Have it answer; raises `ChildLostError` and `WorkerDiedError`."""

    @property
    def pid(self) -> int | None:
        """Process id of the running process, None when there is none.

        It leads the process group of all that belongs to the worker.
        """
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Start the process and wait until it can check.

        Raises:
          InstallError: a part of it is not installed.
          BackendError: the process does not become ready.
          WorkerDiedError: something outside ended, stopped or disturbed it.
        """
        self.close()
        program = self._program()
        command, environment = program.command, program.environment
        if program.readable is not None:
            command = confined(
                command,
                readable=program.readable,
                memory_mb=program.memory_mb,
                # What all its threads can use in a long life: only a process that got
                # out of our sight ever meets this limit.
                cpu_s=math.ceil(LIFE_S + self._wall_s) * (os.cpu_count() or 1),
                environment=environment,
                confinement=self._confinement,
            )
            environment = {}
        try:
            self._child = Child(command, folder=program.folder, environment=environment)
            self._born = time.monotonic()
            self._make_ready()
        except (OSError, ChildLostError) as error:
            if isinstance(error, ChildLostError) and error.how in FROM_OUTSIDE:
                raise WorkerDiedError(
                    f"as it started, {error}", innocent=True
                ) from error
            raise BackendError(
                f"{program.command[0]} was expected to become ready, got: {error}; "
                f"{program.remedy}."
            ) from error

    def check(self, request: CheckRequest | RunRequest) -> RawReport:
        """Elaborate one request; starts the process where there is none.

        Raises:
          WorkerDiedError: the process ended or stopped answering before the proof's
            own time was used up.
          BackendError, InstallError: the process cannot be started.
        """
        limits = request.limits
        memory_mb = min(limits.memory_mb, self._most_memory_mb or limits.memory_mb)
        wall_s = max(limits.wall_s, self._wall_s)
        if (memory_mb, wall_s) != (self._memory_mb, self._wall_s):
            self._memory_mb, self._wall_s = memory_mb, wall_s
            self.close()
        if self.pid is None:
            self.start()
        try:
            report = self._elaborate(request)
        except ChildLostError as lost:
            raise WorkerDiedError(str(lost), innocent=lost.how == "stopped") from lost
        if time.monotonic() > self._born + LIFE_S:
            self.close()
        return report

    def interrupt(self) -> None:
        """Kill the process; the owner's `check` raises `WorkerDiedError`."""
        child = self._child
        if child is not None:
            child.kill()

    def close(self) -> None:
        """Kill the process group and wait for its end."""
        if self._child is not None:
            self._child.close()


def read_object(
    child: Child, delimiter: bytes, deadline: float, longest: int
) -> dict[str, Any]:
    """The next JSON object that a process prints.

    Args:
      child: the process.
      delimiter: what ends an answer.
      deadline: on the monotonic clock, in seconds.
      longest: bytes after which it is no answer.

    Raises:
      ChildLostError: it printed none in time; nothing after that can be trusted.
    """
    answer = child.read_until(delimiter, deadline, longest)
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise child.lost(f"printed {answer[:200]!r}, which is no JSON object")
    return found


def in_own_time(
    ask: Callable[[float], dict[str, Any]], wall_s: float, patience_s: float
) -> dict[str, Any] | RawReport:
    """The answer about a proof, or the report that its time was used up.

    No answer is the proof's fault only when its time was really used up and nothing
    had stopped its process.

    Args:
      ask: gives the answer before a deadline on the monotonic clock.
      wall_s: the proof's own time, in seconds from now.
      patience_s: what the answer may take after that, in seconds.

    Raises:
      WorkerDiedError: the process was lost before.
    """
    begin = time.monotonic()
    try:
        return ask(begin + wall_s + patience_s)
    except ChildLostError as lost:
        stopped = lost.how == "stopped"
        if lost.moment < begin + wall_s or stopped:
            raise WorkerDiedError(
                str(lost), innocent=stopped, exhausted=lost.exhausted
            ) from lost
        return RawReport(timed_out=True, seconds=lost.moment - begin)
