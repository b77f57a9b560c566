"""A Kimina Lean server as a backend: HTTP to a machine that has Lean."""

import math
import secrets
import time
from typing import Any

from fdjax.errors import BackendError
from fdjax.lean.backends.kimina_http import (
    Answer,
    KiminaServer,
    Patience,
    SnippetTimeoutError,
)
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

__all__ = ["KiminaBackend", "Patience"]

REFUSAL = "(fdjax: "
"""Begins what `fdjax serve` answers for text that it does not run, such as ours."""


class KiminaBackend:
    """A client of one server; every worker of a `Verifier` has a connection.

    Each proof is a request of its own, so one that is refused or lost costs no other.
    All that is believed of an answer is a message with a nonce that our own Lean
    program writes (see `fdjax.lean.backends.session`). The server and its other clients
    are trusted, and so is how it keeps a submission's process away from everything
    else.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        trusted_s: float = 30.0,
        patience: Patience | None = None,
    ) -> None:
        """Prepare; `start` or the first request connects.

        Args:
          url: where the server is, for instance `http://lean.example:8000`.
          token: sent as bearer token.
          trusted_s: what our program, the header and the statement may take, and the
            imports too, in seconds. The server's limit on a snippet is this and the
            proof's own time.
          patience: how long to try with a busy, absent or failing server.

        Raises:
          ConfigError: `url` is no address.
          InstallError: httpx is missing.
        """
        self._server = KiminaServer(url, token, patience or Patience())
        self._trusted_s = trusted_s
        self._program = Program()

    @property
    def identity(self) -> str:
        """The server's address and a hash of our program.

        The server does not tell its toolchain: give another Lean another address, or
        another cache.
        """
        return f"kimina/{self._server.url}/{program_version('session')}"

    def start(self) -> None:
        """Ask for the server's health.

        Raises:
          BackendError: there is no healthy server, or it refuses the token.
        """
        self._server.require_health()

    def check(self, request: CheckRequest | RunRequest) -> RawReport:
        """Elaborate one request; connects where there is no connection.

        Raises:
          WorkerDiedError: the server is well and gives no usable answer.
          BackendError: the server refuses us, or its Lean our program; it is away, busy
            or unwell for longer than the patience.
        """
        if not is_text(request):
            return NOT_TEXT
        return _Check(self._server, self._program, request, self._trusted_s).report()

    def interrupt(self) -> None:
        """End a running request; the owner's `check` raises `WorkerDiedError`."""
        self._server.interrupt()

    def close(self) -> None:
        """Close the connection."""
        self._server.close()


class _Check:
    """One request: the snippets that it takes."""

    def __init__(
        self,
        server: KiminaServer,
        program: Program,
        request: CheckRequest | RunRequest,
        trusted_s: float,
    ) -> None:
        self._server = server
        self._program = program
        self._request = request
        self._trusted_s = trusted_s
        if isinstance(request, RunRequest):
            # Only the file's imports are of use before the file itself.
            modules = imports_of(request.source)
            self._header = "".join(f"import {module}\n" for module in modules)
        else:
            self._header = request.header
        self._header_nonce = secrets.token_hex(16)
        self._statement_nonce = secrets.token_hex(16)
        self._trusted = [
            program.begin(self._header),
            program.header(self._header, self._header_nonce),
        ]
        if isinstance(request, CheckRequest):
            self._trusted.append(program.statement(request, self._statement_nonce))

    def report(self) -> RawReport:
        """What the server's Lean makes of the request."""
        request = self._request
        if isinstance(request, CheckRequest) and request.proof is None:
            answer = self._trusted_answer(self._trusted)
            return self._broken(answer.reply) or RawReport()
        nonce = secrets.token_hex(16)
        snippet = "\n".join([*self._trusted, self._program.check(request, nonce)])
        limit_s = math.ceil(request.limits.wall_s + self._trusted_s)
        begin = time.monotonic()
        try:
            answer = self._server.check(snippet, limit_s)
        except SnippetTimeoutError as error:
            used_s = min(limit_s, time.monotonic() - begin)
            return self._timed_out(used_s, error)
        if report := self._broken(answer.reply):
            return report
        record = read_record(answer.reply, nonce)
        if record is None:
            raise WorkerDiedError(f"no record of ours in {str(answer.reply)[:500]}")
        return report_of(record)

    def _broken(self, reply: dict[str, Any]) -> RawReport | None:
        """What an answer says is wrong with header or statement; None when nothing."""
        record = read_record(reply, self._header_nonce)
        if record is None:
            if "env" not in reply:
                raise WorkerDiedError(f"expected a state, got {str(reply)[:500]}")
            self._require_program()
            record = without_program(self._header, reply)
        report = trusted_report(record, is_header=True)
        if isinstance(self._request, RunRequest):
            return report and run_report(report)
        if report is None:
            record = read_record(reply, self._statement_nonce)
            if record is None:
                raise WorkerDiedError(f"no record of ours in {str(reply)[:500]}")
            report = trusted_report(record)
        return report

    def _require_program(self) -> None:
        """Tell a header that cannot be loaded from a Lean that cannot run us."""
        nonce = secrets.token_hex(16)
        answer = self._trusted_answer(
            [self._program.begin(""), self._program.header("", nonce)]
        )
        if read_record(answer.reply, nonce) is None:
            said = without_program("", answer.reply)["statement_error"]
            remedy = "use a server with Lean 4.9 or later"
            if REFUSAL in said:
                remedy = "this is an fdjax serve: use RemoteBackend (--backend remote)"
            raise BackendError(
                "KiminaBackend: expected the server's Lean to elaborate `import Lean` "
                f"and our program, got: {said}; {remedy}."
            )

    def _timed_out(self, used_s: float, error: Exception) -> RawReport:
        """A time limit is the proof's fault only when the rest left it its time."""
        answer = self._trusted_answer(self._trusted)
        proof_s = used_s - answer.seconds
        if proof_s < self._request.limits.wall_s:
            raise WorkerDiedError(
                f"{error}, {max(0.0, proof_s):.1f} s of it the proof's; raise trusted_s"
            )
        return RawReport(timed_out=True, seconds=proof_s)

    def _trusted_answer(self, parts: list[str]) -> Answer:
        try:
            return self._server.check("\n".join(parts), math.ceil(self._trusted_s))
        except SnippetTimeoutError as error:
            raise WorkerDiedError(f"{error}, on trusted text alone") from None
