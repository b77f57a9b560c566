"""The community REPL in a Lake project, as a backend."""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fdjax.errors import BackendError, InstallError
from fdjax.lean.backends.lake import toolchain
from fdjax.lean.backends.program import program_version
from fdjax.lean.backends.record import (
    NOT_TEXT,
    Program,
    imports_of,
    is_text,
    read_record,
    report_of,
    run_report,
    trusted_report,
    without_program,
)
from fdjax.lean.backends.repl_process import NoAnswerError, ReplProcess
from fdjax.lean.facts.backend import (
    DEFAULT_LIMITS,
    CheckRequest,
    RawReport,
    RunRequest,
    WorkerDiedError,
)
from fdjax.lean.sandbox.confinement import Confinement, confined

__all__ = ["ReplBackend"]

TRUSTED_S = 60.0
"""Longest wait for a header's commands or a statement."""
RENDER_S = 0.25
"""What the answer may take after the proof's own time."""
THREADS_MB = 2048
"""Private memory besides Lean's heap: stacks and arenas, reserved rather than used."""


class ReplBackend:
    """A `lake env repl` process; see github.com/leanprover-community/repl.

    Imports, headers and statements are elaborated once per process and kept. All that
    is believed of the process is a message with a nonce that our own Lean program
    writes (see `fdjax.lean.backends.record`).
    """

    def __init__(
        self,
        project: Path,
        *,
        lake: str = "lake",
        command: Sequence[str] | None = None,
        environment: Sequence[str] = ("HOME", "PATH", "ELAN_HOME"),
        header: str = "",
        import_timeout_s: float = 300.0,
        commands_per_process: int = 2000,
        confinement: Confinement | None = None,
    ) -> None:
        """Prepare; `start` does the work.

        Args:
          project: folder of a built Lake project; the process runs in it.
          lake: name or path of the `lake` program.
          command: starts the REPL, without any sandbox: put one around it. By default
            the project's own program `repl` runs in ours, as every checker does.
          environment: names of the variables that `command` gets from this process.
          header: loaded at the start instead of with the first proof.
          import_timeout_s: longest wait for imports, in seconds.
          commands_per_process: a process that has answered so many is replaced,
            because the REPL keeps every state it has been in.
          confinement: kind of sandbox; the strongest that works here by default.
        """
        self._project = Path(project).resolve()
        self._lake = lake
        self._own_command = None if command is None else list(command)
        self._own_variables = tuple(environment)
        self._confinement: Confinement | None = confinement
        self._memory_mb = DEFAULT_LIMITS.memory_mb
        self._first_header = header
        self._import_timeout_s = import_timeout_s
        self._commands_per_process = commands_per_process
        self._program = Program()
        self._process: ReplProcess | None = None
        self._forget()

    @property
    def identity(self) -> str:
        """Lean's version, hashes of the project as it was built and of our program.

        Of a `command` of one's own no more is known than its words.

        Raises:
          InstallError: there is no `lake`, or the folder is no Lake project.
        """
        if self._own_command is None:
            what = toolchain(self._project, self._lake).version
        else:
            words = json.dumps([str(self._project), self._own_command])
            what = hashlib.sha256(words.encode()).hexdigest()[:16]
        return f"repl/{what}/{program_version('session')}"

    @property
    def pid(self) -> int | None:
        """Process id of the running REPL, None when there is none."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the REPL and have it elaborate our program (seconds).

        Raises:
          BackendError: the REPL cannot be started, or its Lean does not take our
            program.
          InstallError: the project has no REPL.
          WorkerDiedError: somebody killed it as it started.
        """
        self.close()
        command, variables = self._how_to_run()
        try:
            process = ReplProcess(command, folder=self._project, environment=variables)
        except OSError as error:
            raise BackendError(
                f"ReplBackend: expected to run {command} in {self._project}, got "
                f"{error}; build the project and the REPL there, or pass command=."
            ) from error
        self._process = process
        try:
            ready = self._header("")
            if self._first_header:
                self._header(self._first_header)
        except WorkerDiedError as error:
            if process.was_killed:
                raise
            ready = RawReport(statement_error=str(error))
        if isinstance(ready, RawReport):
            self.close()
            raise BackendError(
                f"ReplBackend: expected the REPL in {self._project} to elaborate "
                f"`import Lean` and our program, got: {ready.statement_error}; check "
                "that the REPL runs there, built with the project's toolchain."
            )

    def check(self, request: CheckRequest | RunRequest) -> RawReport:
        """Elaborate one request; starts the process where there is none.

        Raises:
          WorkerDiedError: the process ended or stopped answering before the proof's
            own time was used up.
          BackendError: the process cannot be started.
        """
        if not is_text(request):
            return NOT_TEXT
        if request.limits.memory_mb != self._memory_mb:
            self._memory_mb = request.limits.memory_mb
            self.close()
        if self._process and self._process.commands >= self._commands_per_process:
            self.close()
        if self._process is None:
            self.start()
        if isinstance(request, RunRequest):
            state = self._imports(request.source)
        else:
            state = self._statement(request)
            if request.proof is None and not isinstance(state, RawReport):
                return RawReport()
        if isinstance(state, RawReport):
            return state
        return self._submission(request, state)

    def interrupt(self) -> None:
        """Kill the process; the owner's `check` raises `WorkerDiedError`."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """Kill the process group and wait for its end."""
        process, self._process = self._process, None
        self._forget()
        if process is not None:
            process.close()

    def _how_to_run(self) -> tuple[list[str], dict[str, str]]:
        """The command line and its variables."""
        if self._own_command is not None:
            names = [name for name in self._own_variables if name in os.environ]
            return self._own_command, {name: os.environ[name] for name in names}
        project = toolchain(self._project, self._lake)
        repl = shutil.which("repl", path=project.programs)
        if repl is None:
            raise InstallError(
                f"ReplBackend: expected a program `repl` among those of the project "
                f"{self._project}, got none; require leanprover-community/repl in its "
                "lakefile and build it, or pass command=."
            )
        search_path = ":".join(map(str, project.folders))
        command = confined(
            [str(Path(repl).absolute())],
            readable=[*project.readable, Path(repl).absolute()],
            memory_mb=self._memory_mb + THREADS_MB,
            # With its sysroot named, Lean asks no other program for it.
            environment={
                "LEAN_PATH": search_path,
                "LEAN_SYSROOT": str(project.sysroot),
            },
            confinement=self._confinement,
        )
        return command, {}

    def _forget(self) -> None:
        # Answers to imports; then numbers of states, or why there is none.
        self._bases: dict[tuple[str, ...], dict[str, Any]] = {}
        self._headers: dict[str, int | RawReport] = {}
        self._statements: dict[tuple[str, str, str], int | RawReport] = {}

    # ---- trusted text, each piece once per process

    def _header(self, header: str) -> int | RawReport:
        """The state after a header, or why there is none."""
        if header not in self._headers:
            modules = imports_of(header)
            if modules not in self._bases:
                source = self._program.begin(header)
                base = self._trusted(source, None, self._import_timeout_s)
                self._bases[modules] = base
            base = self._bases[modules]
            nonce = secrets.token_hex(16)
            command = self._program.header(header, nonce)
            reply = self._trusted(command, base["env"], TRUSTED_S)
            record = read_record(reply, nonce)
            if record is None:
                record = without_program(header, base)
            self._headers[header] = (
                trusted_report(record, is_header=True) or reply["env"]
            )
        return self._headers[header]

    def _statement(self, request: CheckRequest) -> int | RawReport:
        """The state after a header and a statement, or why there is none."""
        header = self._header(request.header)
        if isinstance(header, RawReport):
            return header
        key = (request.header, request.statement, request.name)
        if key not in self._statements:
            nonce = secrets.token_hex(16)
            command = self._program.statement(request, nonce)
            reply = self._trusted(command, header, TRUSTED_S)
            record = self._require_record(reply, nonce)
            self._statements[key] = trusted_report(record) or reply["env"]
        return self._statements[key]

    def _imports(self, source: str) -> int | RawReport:
        """The state with a bare file's imports, or why there is none."""
        lines = "".join(f"import {module}\n" for module in imports_of(source))
        state = self._header(lines)
        return run_report(state) if isinstance(state, RawReport) else state

    def _trusted(self, cmd: str, env: int | None, patience_s: float) -> dict[str, Any]:
        """The answer to text that no submission has a part in."""
        assert self._process is not None
        try:
            return self._process.ask(cmd, env, time.monotonic() + patience_s)
        except NoAnswerError:
            what = f"the REPL did not answer to trusted text in {patience_s:g} s"
        except WorkerDiedError as error:
            what = str(error)
        self.close()
        raise WorkerDiedError(what, innocent=True)

    # ---- untrusted text

    def _submission(self, request: CheckRequest | RunRequest, state: int) -> RawReport:
        assert self._process is not None
        nonce = secrets.token_hex(16)
        command = self._program.check(request, nonce)
        wall_s = request.limits.wall_s
        begin = time.monotonic()
        try:
            reply = self._process.ask(command, state, begin + wall_s + RENDER_S)
        except (NoAnswerError, WorkerDiedError) as error:
            elapsed = time.monotonic() - begin
            stopped = self._process.is_stopped()
            self.close()
            if elapsed < wall_s:
                exhausted = isinstance(error, WorkerDiedError) and error.exhausted
                raise WorkerDiedError(str(error), exhausted=exhausted) from error
            if stopped:
                raise WorkerDiedError(
                    "the REPL had been stopped", innocent=True
                ) from error
            return RawReport(timed_out=True, seconds=elapsed)
        return report_of(self._require_record(reply, nonce), request.limits)

    def _require_record(self, reply: dict[str, Any], nonce: str) -> dict[str, Any]:
        record = read_record(reply, nonce)
        if record is None:
            self.close()
            raise WorkerDiedError(f"no record of ours in {str(reply)[:500]}")
        return record
