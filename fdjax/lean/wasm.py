"""The embedded Lean: a sandboxed Node.js process per worker."""

import json
import logging
import os
import secrets
import select
import signal
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fdjax.errors import BackendError, InstallError
from fdjax.lean.backend import (
    DEFAULT_LIMITS,
    CheckRequest,
    RawMessage,
    RawReport,
    RunRequest,
    Target,
    WholeFile,
    WorkerDiedError,
)
from fdjax.lean.location import (
    HOST_DIR,
    PACKAGE_VERSION,
    TOOLCHAIN,
    default_target,
    host_version,
    installed,
    node_executable,
    runtime_file,
)
from fdjax.lean.safety import POLICY
from fdjax.lean.source import source_of

__all__ = ["WasmBackend"]

_log = logging.getLogger(__name__)

TRUSTED_S = 130.0
"""Longest wait for a header and a statement; the host gives each a minute."""
RENDER_S = 0.15
"""What the host may take to print messages after the proof's own time."""
MOST_MEMORY_MB = 2048
"""What a 32-bit WebAssembly memory is given at most."""
RECYCLE_FRACTION = 0.75
"""A worker whose heap has grown past this part of its memory is replaced."""


class WasmBackend:
    """Lean 4.28 with Init and Std, compiled to WebAssembly.

    The process sees no environment, can read only the installation, and can neither
    write files nor start processes; Lean inside sees only its library.
    """

    def __init__(
        self,
        install_dir: Path | None = None,
        *,
        grace_s: float = 0.3,
        start_timeout_s: float = 120.0,
    ) -> None:
        """Prepare; `start` does the work.

        Args:
          install_dir: what `install` returned; the user's cache by default.
          grace_s: time between Lean's own cancellation and a hard kill, seconds.
          start_timeout_s: longest wait for the process to become ready, seconds.
        """
        self._install_dir = install_dir
        self._grace_s = grace_s
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._memory_mb = DEFAULT_LIMITS.memory_mb
        self._buffer = b""
        self._complaints: deque[bytes] = deque(maxlen=20)
        self._drain: threading.Thread | None = None

    @property
    def identity(self) -> str:
        """Toolchain, package version and a hash of our host's files."""
        return f"{TOOLCHAIN}/{PACKAGE_VERSION}/{host_version()}"

    @property
    def pid(self) -> int | None:
        """Process id of the running worker, None when there is none."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process and wait until it can check (2 to 3 s).

        Raises:
          InstallError: the embedded Lean or Node.js is not installed.
          BackendError: the process does not become ready.
        """
        self.close()
        folder = installed(self._install_dir)
        if folder is None:
            where = self._install_dir or default_target()
            raise InstallError(
                f"The embedded Lean was expected in {where} and is not there, or is "
                "of another version; call fdjax.lean.install()."
            )
        self._process = subprocess.Popen(
            self._command(folder.resolve()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={},
            cwd=folder,
            start_new_session=True,
        )
        self._drain = threading.Thread(
            target=self._drain_stderr, args=(self._process,), daemon=True
        )
        self._drain.start()
        answer = self._read_line(time.monotonic() + self._start_timeout_s)
        if answer is None or not answer.get("ready"):
            complaint = b"".join(self._complaints).decode(errors="replace")[-1000:]
            self.close()
            raise BackendError(
                f"The embedded Lean in {folder} was expected to become ready within "
                f"{self._start_timeout_s:g} s, got {str(answer)[:1000]} {complaint}; "
                "install it again with fdjax.lean.install()."
            )
        _log.debug("embedded Lean ready: %s", answer)

    def check(self, request: CheckRequest | RunRequest) -> RawReport:
        """Elaborate one request; starts the process where there is none.

        Raises:
          WorkerDiedError: the process ended or stopped answering before the proof's
            own time was used up.
        """
        memory_mb = min(request.limits.memory_mb, MOST_MEMORY_MB)
        if memory_mb != self._memory_mb:
            self._memory_mb = memory_mb
            self.close()
        if self._process is None:
            self.start()
        nonce = secrets.token_hex(8)
        self._write(_request_line(request, nonce))
        answer = self._answer(nonce, time.monotonic() + TRUSTED_S)
        started = time.monotonic()
        if answer is not None and "started" in answer:
            patience = request.limits.wall_s + self._grace_s + RENDER_S
            answer = self._answer(nonce, started + patience)
            if answer is None:
                return self._lost_proof(request, time.monotonic() - started)
        if answer is None:
            raise self._died()
        if "crash" in answer:
            seconds = time.monotonic() - started
            self.close()
            if answer["out_of_memory"]:
                return RawReport(out_of_memory=True, seconds=seconds)
            raise WorkerDiedError(f"The embedded Lean failed: {answer['crash']}")
        if answer["heap_mb"] > RECYCLE_FRACTION * self._memory_mb:
            self.close()
        return _report(answer)

    def interrupt(self) -> None:
        """Kill the process; the owner's `check` raises `WorkerDiedError`."""
        process = self._process
        if process is not None:
            _kill_group(process)

    def close(self) -> None:
        """Kill the process group and wait for its end."""
        process, self._process = self._process, None
        self._buffer = b""
        if process is None:
            return
        _kill_group(process)
        process.wait()
        if self._drain is not None:
            self._drain.join()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    def _command(self, folder: Path) -> list[str]:
        settings = {
            "install": str(folder),
            "runtime": str(runtime_file(folder)),
            "memory_mb": self._memory_mb,
            "heartbeats": DEFAULT_LIMITS.heartbeats,
            "grace_ms": self._grace_s * 1000,
            "policy": asdict(POLICY),
        }
        return [
            str(node_executable()),
            "--permission",
            f"--allow-fs-read={folder}",
            f"--allow-fs-read={HOST_DIR.resolve()}",
            "--allow-worker",
            str(HOST_DIR.resolve() / "main.js"),
            json.dumps(settings),
        ]

    def _drain_stderr(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        while chunk := process.stderr.read(4096):
            self._complaints.append(chunk)

    def _write(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        view = memoryview(line)
        try:
            while view:
                view = view[self._process.stdin.write(view) or 0 :]
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
        while b"\n" not in self._buffer:
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([descriptor], [], [], wait)[0]:
                return None
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def _lost_proof(
        self, request: CheckRequest | RunRequest, elapsed: float
    ) -> RawReport:
        """No report came: the proof's fault only when its time was really used up."""
        if elapsed < request.limits.wall_s:
            raise self._died()
        self.close()
        return RawReport(timed_out=True, seconds=elapsed)

    def _died(self) -> WorkerDiedError:
        process = self._process
        self.close()
        code = process.returncode if process else None
        complaint = b"".join(self._complaints).decode(errors="replace")[-500:]
        return WorkerDiedError(
            f"The embedded Lean ended (exit status {code}) {complaint}".rstrip()
        )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the group that the process leads; until it is reaped the id is ours."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _request_line(request: CheckRequest | RunRequest, nonce: str) -> bytes:
    fields: dict[str, Any] = {
        "nonce": nonce,
        "heartbeats": request.limits.heartbeats,
        "wall_ms": request.limits.wall_s * 1000,
        "output_bytes": request.limits.output_bytes,
    }
    if isinstance(request, RunRequest):
        fields |= {"kind": "run", "source": request.source}
    else:
        kinds = {type(None): "statement", str: "proof", WholeFile: "file"}
        proof = request.proof or ""
        fields |= {
            "kind": kinds[type(request.proof)],
            "name": request.name,
            "header": request.header,
            "statement": request.statement.rstrip(),
            "source": source_of(request.statement, request.header, proof).text,
        }
    return json.dumps(fields).encode() + b"\n"


def _report(answer: dict[str, Any]) -> RawReport:
    target = answer.get("target")
    return RawReport(
        statement_error=answer.get("statement_error", ""),
        has_errors=answer.get("has_errors", False),
        messages=tuple(RawMessage(**message) for message in answer.get("messages", ())),
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
