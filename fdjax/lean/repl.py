"""The community REPL in a Lake project, as a backend."""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fdjax.errors import BackendError
from fdjax.lean.backend import (
    CheckRequest,
    RawReport,
    RunRequest,
    WorkerDiedError,
)
from fdjax.lean.record import (
    NOT_TEXT,
    Program,
    imports_of,
    is_text,
    program_version,
    read_record,
    report_of,
    run_report,
    trusted_report,
    without_program,
)
from fdjax.lean.repl_process import NoAnswerError, ReplProcess

__all__ = ["ReplBackend"]

TRUSTED_S = 60.0
"""Longest wait for a header's commands or a statement."""
RENDER_S = 0.25
"""What the answer may take after the proof's own time."""
PROJECT_FILES = (
    "lean-toolchain",
    "lake-manifest.json",
    "lakefile.toml",
    "lakefile.lean",
)
"""What decides a project's Lean and its dependencies."""


class ReplBackend:
    """A `lake env repl` process; see github.com/leanprover-community/repl.

    Imports, headers and statements are elaborated once per process and kept. All that
    is believed of the process is a message with a nonce that our own Lean program
    writes (see `fdjax.lean.record`). The REPL itself limits nothing: memory, network
    and files are for `wrap` to limit.
    """

    def __init__(
        self,
        project: Path,
        *,
        command: Sequence[str] = ("lake", "env", "repl"),
        wrap: Callable[[list[str]], list[str]] = list,
        environment: Sequence[str] = ("HOME", "PATH", "ELAN_HOME"),
        header: str = "",
        import_timeout_s: float = 300.0,
        commands_per_process: int = 2000,
    ) -> None:
        """Prepare; `start` does the work.

        Args:
          project: folder of a built Lake project; the process runs in it.
          command: starts the REPL.
          wrap: puts a sandbox around a command.
          environment: names of the variables that the process gets from this one.
          header: loaded at the start instead of with the first proof.
          import_timeout_s: longest wait for imports, in seconds.
          commands_per_process: a process that has answered so many is replaced,
            because the REPL keeps every state it has been in.
        """
        self._project = project
        self._command = list(command)
        self._wrap = wrap
        self._environment = tuple(environment)
        self._first_header = header
        self._import_timeout_s = import_timeout_s
        self._commands_per_process = commands_per_process
        self._program = Program()
        self._process: ReplProcess | None = None
        self._forget()

    @property
    def identity(self) -> str:
        """Hashes of the command, the project's toolchain and manifest, our program.

        The project's own Lean files are not part of it.
        """
        digest = hashlib.sha256(json.dumps(self._command).encode())
        for name in PROJECT_FILES:
            with suppress(FileNotFoundError):
                content = (self._project / name).read_bytes()
                digest.update(name.encode() + b"\0" + content)
        return f"repl/{digest.hexdigest()[:16]}/{program_version()}"

    @property
    def pid(self) -> int | None:
        """Process id of the running REPL, None when there is none."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the REPL and have it elaborate our program (seconds).

        Raises:
          BackendError: the REPL cannot be started, or its Lean does not take our
            program.
          WorkerDiedError: somebody killed it as it started.
        """
        self.close()
        command = self._wrap(self._command)
        variables = {
            name: os.environ[name] for name in self._environment if name in os.environ
        }
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
                f"ReplBackend: expected {command} in {self._project} to elaborate "
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
            self._headers[header] = trusted_report(record) or reply["env"]
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
                raise WorkerDiedError(str(error)) from error
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
