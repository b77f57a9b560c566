"""A checker process that speaks our JSON lines, and how it is kept alive or ended."""

import json
import logging
import math
import os
import re
import secrets
import select
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fdjax.errors import BackendError
from fdjax.lean.facts.backend import (
    DEFAULT_LIMITS,
    CheckRequest,
    RawMessage,
    RawReport,
    RunRequest,
    Target,
    WholeFile,
    WorkerDiedError,
)
from fdjax.lean.facts.source import alone, opening_of, source_of
from fdjax.lean.sandbox.confinement import Confinement, confined

__all__ = ["CheckerProcess", "Program", "is_exhausted", "is_stopped", "kill_group"]

_log = logging.getLogger(__name__)

TRUSTED_S = 190.0
"""Longest wait for a header and a statement: the checker gives each a minute, and
importing a large library takes time, too."""
LIFE_S = 3600.0
"""A process as old as this is replaced after its answer."""
LOOK_S = 2.0
"""How often a process that does not answer is looked at."""
REAP_S = 0.5
"""How long a process that closed its pipe may take to end."""
LINE_BYTES = 1 << 20
LINE_FACTOR = 256
"""Longest line that a checker may print: so much, and so much more for each byte of
output that it may show, since a message of one byte has a position and a kind."""
RENDER_S = 0.15
"""What the checker may take to print messages after the proof's own time."""
TOO_LARGE = (-signal.SIGFPE, 128 + signal.SIGFPE)
"""How GMP ends a process for a number beyond its limits, without a word."""

_LAST_WORDS = re.compile(
    r"Stack overflow detected\. Aborting\."
    r"|INTERNAL PANIC: (?:out of memory|.* too big)"
    r"|GNU MP: Cannot (?:re)?allocate memory|gmp: overflow in mpz type"
    r"|std::bad_alloc"
)


@dataclass(frozen=True, kw_only=True)
class Program:
    """A checker to run."""

    command: Sequence[str]
    """Absolute path of the program, and its arguments."""
    folder: Path
    """Working directory."""
    readable: Sequence[Path]
    """All it may read besides the system's own libraries."""
    memory_mb: int
    """Limit of its private memory, in MiB."""


class CheckerProcess(ABC):
    """The part of a backend that is the same wherever the checker runs.

    The process runs in the strongest sandbox of this machine (see
    `fdjax.lean.sandbox.confinement`), with an empty environment, a session of its own
    and nothing but three pipes. The parent never waits longer than the limits allow.
    """

    def __init__(
        self,
        *,
        grace_s: float,
        start_timeout_s: float,
        confinement: Confinement | None = None,
    ) -> None:
        """Prepare; `start` does the work.

        Args:
          grace_s: time between Lean's own cancellation and a hard kill, seconds.
          start_timeout_s: longest wait for the process to become ready, seconds.
          confinement: kind of sandbox; the strongest that works here by default.
        """
        self._confinement: Confinement | None = confinement
        self._grace_s = grace_s
        self._start_timeout_s = start_timeout_s
        self._memory_mb = DEFAULT_LIMITS.memory_mb
        self._wall_s = LIFE_S
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = bytearray()
        self._longest_line = LINE_BYTES
        self._born = 0.0
        self._complaints: deque[bytes] = deque(maxlen=20)
        self._drain: threading.Thread | None = None

    @property
    @abstractmethod
    def identity(self) -> str:
        """Toolchain and checker: verdicts of equal identity are equal."""

    @abstractmethod
    def _program(self) -> "Program":
        """What to run; may raise `InstallError`."""

    @abstractmethod
    def _remedy(self) -> str:
        """What to do when the process does not become ready."""

    @abstractmethod
    def _is_worn(self, answer: dict[str, Any]) -> bool:
        """Whether the process should be replaced after this answer."""

    def _usable_memory_mb(self, wanted_mb: int) -> int:
        """What the process may be given of it."""
        return wanted_mb

    @property
    def pid(self) -> int | None:
        """Process id of the running worker's supervisor, None when there is none.

        It leads the process group of all that belongs to the worker.
        """
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process and wait until it can check.

        Raises:
          InstallError: a part of it is not installed.
          BackendError: the process does not become ready.
        """
        self.close()
        program = self._program()
        command = confined(
            program.command,
            readable=program.readable,
            memory_mb=program.memory_mb,
            # What all its threads can use in a long life: only a process that got out
            # of our sight ever meets this limit.
            cpu_s=math.ceil(LIFE_S + self._wall_s) * (os.cpu_count() or 1),
            confinement=self._confinement,
        )
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={},
                cwd=program.folder,
                start_new_session=True,
            )
        except OSError as error:
            raise BackendError(
                f"{program.command[0]} was expected to start, got {error}; "
                f"{self._remedy()}."
            ) from error
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._born = time.monotonic()
        self._complaints.clear()
        self._drain = threading.Thread(
            target=self._drain_stderr, args=(self._process,), daemon=True
        )
        self._drain.start()
        answer = self._first_answer()
        if answer is None or not answer.get("ready"):
            self._require_own_end()
            raise BackendError(
                f"Lean was expected to become ready within {self._start_timeout_s:g} "
                f"s, got {str(answer)[:1000]} {self._complaint()}; {self._remedy()}."
            )
        _log.debug("Lean is ready: %s", answer)

    def check(self, request: CheckRequest | RunRequest) -> RawReport:
        """Elaborate one request; starts the process where there is none.

        Raises:
          WorkerDiedError: the process ended or stopped answering before the proof's
            own time was used up.
          BackendError, InstallError: the process cannot be started.
        """
        memory_mb = self._usable_memory_mb(request.limits.memory_mb)
        wall_s = max(self._wall_s, request.limits.wall_s)
        if (memory_mb, wall_s) != (self._memory_mb, self._wall_s):
            self._memory_mb, self._wall_s = memory_mb, wall_s
            self.close()
        if self._process is None:
            self.start()
        nonce = secrets.token_hex(8)
        self._longest_line = LINE_BYTES + LINE_FACTOR * request.limits.output_bytes
        self._write(_request_line(request, nonce))
        answer = self._answer(nonce, time.monotonic() + TRUSTED_S)
        started = time.monotonic()
        in_proof = answer is not None and "started" in answer
        if in_proof:
            patience = request.limits.wall_s + self._grace_s + RENDER_S
            answer = self._answer(nonce, started + patience)
            if answer is None:
                return self._lost_proof(
                    request.limits.wall_s, time.monotonic() - started
                )
        if answer is None:
            raise self._died()
        if "crash" in answer:
            seconds = time.monotonic() - started
            self.close()
            if in_proof and answer["out_of_memory"]:
                return RawReport(out_of_memory=True, seconds=seconds)
            raise WorkerDiedError(f"Lean failed: {answer['crash']}")
        if self._is_worn(answer) or time.monotonic() > self._born + LIFE_S:
            self.close()
        return _report(answer)

    def interrupt(self) -> None:
        """Kill the process; the owner's `check` raises `WorkerDiedError`."""
        process = self._process
        if process is not None:
            kill_group(process)

    def close(self) -> None:
        """Kill the process group and wait for its end."""
        process, self._process = self._process, None
        self._buffer.clear()
        if process is None:
            return
        kill_group(process)
        process.wait()
        if self._drain is not None:
            self._drain.join()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    def _drain_stderr(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        while chunk := process.stderr.read(4096):
            self._complaints.append(chunk)

    def _complaint(self) -> str:
        return b"".join(self._complaints).decode(errors="replace")[-1000:].strip()

    def _write(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        descriptor = self._process.stdin.fileno()
        deadline = time.monotonic() + TRUSTED_S
        view = memoryview(line)
        while view:
            if not select.select([], [descriptor], [], LOOK_S)[1]:
                self._require_running()
                if time.monotonic() > deadline:
                    raise self._died("it takes no request")
                continue
            try:
                view = view[os.write(descriptor, view) :]
            except BrokenPipeError:
                raise self._died() from None

    def _answer(self, nonce: str, deadline: float) -> dict[str, Any] | None:
        """The next line that carries our nonce; None at the end or the deadline."""
        while (answer := self._read_line(deadline)) is not None:
            if nonce in (answer.get("nonce"), answer.get("started")):
                return answer
        return None

    def _read_line(self, deadline: float) -> dict[str, Any] | None:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > self._longest_line:
                raise self._died(f"it printed {searched} bytes without a line's end")
            wait = deadline - time.monotonic()
            if wait <= 0:
                return None
            if not select.select([descriptor], [], [], min(wait, LOOK_S))[0]:
                self._require_running()
                continue
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return None
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        # Whatever else stands on the pipe, nothing after it can be trusted.
        if not isinstance(answer, dict):
            raise self._died(f"it printed {line[:200]!r} instead of an answer")
        return answer

    def _first_answer(self) -> dict[str, Any] | None:
        try:
            return self._read_line(time.monotonic() + self._start_timeout_s)
        except WorkerDiedError as error:
            raise WorkerDiedError(str(error), innocent=True) from None

    def _require_own_end(self) -> None:
        """End a process that is not ready; raise if something else had ended it."""
        process = self._process
        assert process is not None
        with suppress(subprocess.TimeoutExpired):
            process.wait(REAP_S)
        killed = process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
        self.close()
        if killed:
            raise WorkerDiedError(
                "the Lean process was ended as it started", innocent=True
            )

    def _require_running(self) -> None:
        """Give up a process that something outside has stopped."""
        assert self._process is not None
        if is_stopped(self._process.pid):
            self.close()
            raise WorkerDiedError("the Lean process had been stopped", innocent=True)

    def _lost_proof(self, wall_s: float, elapsed: float) -> RawReport:
        """No report came: the proof's fault only when its time was really used up."""
        if elapsed < wall_s:
            raise self._died(in_proof=True)
        self._require_running()
        self.close()
        return RawReport(timed_out=True, seconds=elapsed)

    def _died(self, what: str = "", *, in_proof: bool = False) -> WorkerDiedError:
        process = self._process
        self.close()
        status = process.returncode if process else None
        what = what or f"exit status {status}"
        said = self._complaint()
        return WorkerDiedError(
            f"The Lean process ended ({what}) {said}".rstrip(),
            exhausted=in_proof and is_exhausted(said, status),
        )


def is_exhausted(said: str, status: int | None) -> bool:
    """Whether a Lean process that ended had used up its memory or stack.

    Only Lean's own last words count, or those of the libraries in it: a process that
    something else has killed says nothing.

    Args:
      said: the end of its standard error.
      status: its exit status.
    """
    return status in TOO_LARGE or bool(_LAST_WORDS.search(said))


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the group that the process leads; until it is reaped the id is ours."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def is_stopped(group: int) -> bool:
    """Whether a process of the group is stopped, where that can be known."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # After the command's name, which is in brackets: state, parent, group.
            state, _, member_of = path.read_text().rpartition(")")[2].split()[:3]
            if int(member_of) == group and state == "T":
                return True
    return False


def _request_line(request: CheckRequest | RunRequest, nonce: str) -> bytes:
    fields: dict[str, Any] = {
        "nonce": nonce,
        "heartbeats": request.limits.heartbeats,
        "wall_ms": round(request.limits.wall_s * 1000),
        "output_bytes": request.limits.output_bytes,
    }
    if isinstance(request, RunRequest):
        fields |= {"kind": "run", "source": request.source}
    else:
        kinds = {type(None): "statement", str: "proof", WholeFile: "file"}
        fields |= {
            "kind": kinds[type(request.proof)],
            "name": request.name,
            "header": request.header,
            "statement": alone(request.statement),
            "opening": opening_of(request.statement),
            "source": source_of(request).text,
        }
    return json.dumps(fields).encode() + b"\n"


def _report(answer: dict[str, Any]) -> RawReport:
    target = answer.get("target")
    messages = [RawMessage(**message) for message in answer.get("messages", ())]
    # A checker may print them by importance.
    messages.sort(key=lambda message: (message.line, message.column))
    return RawReport(
        statement_error=answer.get("statement_error", ""),
        in_header=answer.get("in_header", False),
        no_proof=answer.get("no_proof", False),
        has_errors=answer.get("has_errors", False),
        messages=tuple(messages),
        left_out=answer.get("left_out", False),
        timed_out=answer.get("timed_out", False),
        refused=answer.get("refused", ""),
        left_proof=answer.get("left_proof", False),
        target=target
        and Target(
            is_theorem=target["is_theorem"],
            matches_statement=target["matches_statement"],
            axioms=tuple(target["axioms"]),
        ),
        seconds=answer.get("seconds", 0.0),
    )
