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

from fdjax.errors import InstallError
from fdjax.lean.backends.lake import toolchain
from fdjax.lean.backends.program import program_version
from fdjax.lean.backends.session import (
    NOT_TEXT,
    Program,
    imports_of,
    is_text,
    read_record,
    run_report,
    trusted_report,
    without_program,
)
from fdjax.lean.facts.backend import (
    CheckRequest,
    RawReport,
    RunRequest,
    WorkerDiedError,
)
from fdjax.lean.facts.record import report_of
from fdjax.lean.sandbox import process
from fdjax.lean.sandbox.child import ChildLostError
from fdjax.lean.sandbox.confinement import Confinement

__all__ = ["ReplBackend"]

TRUSTED_S = 60.0
"""Longest wait for a header's commands or a statement."""
RENDER_S = 0.25
"""What the answer may take after the proof's own time."""
END = b"\n\n"
"""What ends a request and an answer."""
LONGEST_ANSWER = 256 << 20
"""Bytes; our program's messages are cut, but not what else a session prints."""
THREADS_MB = 2048
"""Private memory besides Lean's heap: stacks and arenas, reserved rather than used."""


class ReplBackend(process.LeanProcess):
    """A `lake env repl` process; see github.com/leanprover-community/repl.

    Imports, headers and statements are elaborated once per process and kept. All that
    is believed of the process is a message with a nonce that our own Lean program
    writes (see `fdjax.lean.backends.session`).
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
        super().__init__(confinement=confinement)
        self._project = Path(project).resolve()
        self._lake = lake
        self._own_command = None if command is None else list(command)
        self._own_variables = tuple(environment)
        self._first_header = header
        self._import_timeout_s = import_timeout_s
        self._commands_per_process = commands_per_process
        self._session = Program()
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

    def check(self, request: CheckRequest | RunRequest) -> RawReport:
        """Elaborate one request; starts the process where there is none.

        Raises:
          WorkerDiedError: the process ended or stopped answering before the proof's
            own time was used up.
          BackendError, InstallError: the process cannot be started.
        """
        if not is_text(request):
            return NOT_TEXT
        if self._commands >= self._commands_per_process:
            self.close()
        return super().check(request)

    def _program(self) -> process.Program:
        remedy = (
            f"build the project {self._project} and the REPL there, with the project's "
            "toolchain, or pass command="
        )
        if self._own_command is not None:
            names = [name for name in self._own_variables if name in os.environ]
            return process.Program(
                command=self._own_command,
                folder=self._project,
                remedy=remedy,
                environment={name: os.environ[name] for name in names},
                readable=None,
                memory_mb=self._memory_mb,
            )
        project = toolchain(self._project, self._lake)
        repl = shutil.which("repl", path=project.programs)
        if repl is None:
            raise InstallError(
                f"ReplBackend: expected a program `repl` among those of the project "
                f"{self._project}, got none; require leanprover-community/repl in its "
                "lakefile and build it, or pass command=."
            )
        search_path = ":".join(map(str, project.folders))
        return process.Program(
            command=[str(Path(repl).absolute())],
            folder=self._project,
            remedy=remedy,
            # With its sysroot named, Lean asks no other program for it.
            environment={
                "LEAN_PATH": search_path,
                "LEAN_SYSROOT": str(project.sysroot),
            },
            readable=[*project.readable, Path(repl).absolute()],
            memory_mb=self._memory_mb + THREADS_MB,
        )

    def _make_ready(self) -> None:
        """Have our program elaborated, which takes seconds."""
        assert self._child is not None
        self._forget()
        ready = self._header("")
        if isinstance(ready, RawReport):
            raise self._child.lost(f"said: {ready.statement_error}", "ended")
        if self._first_header:
            self._header(self._first_header)

    def _elaborate(self, request: CheckRequest | RunRequest) -> RawReport:
        try:
            if isinstance(request, RunRequest):
                state = self._imports(request.source)
            else:
                state = self._statement(request)
        except ChildLostError as lost:
            raise WorkerDiedError(str(lost), innocent=True) from lost
        if isinstance(state, RawReport):
            return state
        if isinstance(request, CheckRequest) and request.proof is None:
            return RawReport()
        return self._submission(request, state)

    def _ask(self, cmd: str, env: int | None, deadline: float) -> dict[str, Any]:
        """Have Lean text elaborated.

        Args:
          cmd: the text.
          env: number of the state to go on from; None for a fresh one with imports.
          deadline: on the monotonic clock, in seconds.

        Returns:
          The answer: the next state's number as `env`, and `messages`.

        Raises:
          ChildLostError: there is no answer in time.
        """
        assert self._child is not None
        self._commands += 1
        # What came unasked cannot be told from an answer.
        self._child.require_silence()
        request = {"cmd": cmd} if env is None else {"cmd": cmd, "env": env}
        # Lean's JSON reader need not know surrogate pairs.
        line = json.dumps(request, ensure_ascii=False)
        self._child.write(line.encode() + END, deadline)
        answer = process.read_object(self._child, END, deadline, LONGEST_ANSWER)
        if not isinstance(answer.get("env"), int):
            what = f"answered {str(answer)[:500]} and not with a state"
            raise self._child.lost(what, "ended")
        return answer

    def _forget(self) -> None:
        # The REPL keeps the state after each command.
        self._commands = 0
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
                source = self._session.begin(header)
                base = self._trusted(source, None, self._import_timeout_s)
                self._bases[modules] = base
            base = self._bases[modules]
            nonce = secrets.token_hex(16)
            command = self._session.header(header, nonce)
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
            command = self._session.statement(request, nonce)
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
        return self._ask(cmd, env, time.monotonic() + patience_s)

    # ---- untrusted text

    def _submission(self, request: CheckRequest | RunRequest, state: int) -> RawReport:
        nonce = secrets.token_hex(16)
        command = self._session.check(request, nonce)
        reply = process.in_own_time(
            lambda deadline: self._ask(command, state, deadline),
            request.limits.wall_s,
            RENDER_S,
        )
        if isinstance(reply, RawReport):
            return reply
        return report_of(self._require_record(reply, nonce))

    def _require_record(self, reply: dict[str, Any], nonce: str) -> dict[str, Any]:
        record = read_record(reply, nonce)
        if record is None:
            self.close()
            raise WorkerDiedError(f"no record of ours in {str(reply)[:500]}")
        return record
