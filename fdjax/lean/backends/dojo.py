"""Verification through LeanDojo: Dojo refuses, another backend confirms."""

import importlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from fdjax.errors import BackendError, InstallError
from fdjax.lean.facts.backend import (
    Backend,
    CheckRequest,
    RawMessage,
    RawReport,
    Request,
    WorkerDiedError,
)
from fdjax.records import Problem

__all__ = ["LeanDojoBackend"]

START_S = 600
"""What Dojo may take to elaborate the file up to the theorem, in whole seconds."""
GRACE_S = 2.0
"""Time after a proof's limit when Dojo's process is killed from outside."""
LINE_BYTES = 4000
"""Longest request: Dojo writes to a terminal, whose line holds 4096 bytes."""
PARSE_ERROR = "<stdin>:"

_entering = threading.Lock()
"""Dojo changes this process's working directory while it starts."""


class Traced(Protocol):
    """A theorem of a traced repository."""

    @property
    def problem(self) -> Problem:
        """As it is asked about."""
        ...

    @property
    def full_name(self) -> str:
        """Its name with its namespaces, as LeanDojo has it."""
        ...

    @property
    def file(self) -> str:
        """The Lean file's path below the repository."""
        ...


class LeanDojoBackend:
    """Tries a proof in Dojo and has another backend check it when Dojo accepts.

    Dojo keeps one Lean process at the theorem, so that a failed attempt costs its own
    elaboration only. What it answers is text about tactic states: neither axioms nor
    the constant's type. So its refusals are taken, with the message but without a
    position, and its acceptances are not: every proof that Dojo accepts, and all that
    it cannot judge (whole files, other statements, text that does not parse in
    parentheses, requests above 4,000 bytes), is decided by `confirm`.

    Dojo's process is not in a sandbox and takes its memory limit from the environment
    variable TACTIC_MEMORY_LIMIT; `Limits.memory_mb` and `Limits.heartbeats` count for
    `confirm` only. Needs git, elan and a network where LeanDojo needs them.

    With `repo = lean_dojo.LeanGitRepo(url, commit)` and the theorems of
    `read_trace(lean_dojo.get_traced_repo_path(repo))`:
    `Verifier(lambda: LeanDojoBackend(repo, trace.theorems, confirm))`.
    """

    def __init__(
        self,
        repo: Any,
        theorems: Iterable[Traced],
        confirm: Callable[[], Backend],
    ) -> None:
        """Prepare; `start` does the work.

        Args:
          repo: the `lean_dojo.LeanGitRepo`, traced and in LeanDojo's cache.
          theorems: those that `fdjax.data.traced.read_trace` found in it; other
            statements go to `confirm`.
          confirm: makes the backend that decides what Dojo accepts. It must be able to
            elaborate the repository's headers.
        """
        self._repo = repo
        self._theorems = {
            (t.problem.name, t.problem.header, t.problem.statement): t for t in theorems
        }
        self._confirm = confirm()
        self._session: Any = None
        self._interrupted = False
        self._dojo: Any = None

    @property
    def identity(self) -> str:
        """LeanDojo's version, the repository's commit and the deciding backend."""
        return f"lean-dojo-{_version()}/{self._repo.commit}/{self._confirm.identity}"

    def start(self) -> None:
        """Start the deciding backend; Dojo starts with the first proof of a theorem.

        Raises:
          InstallError: LeanDojo is not installed.
          BackendError: the deciding backend cannot be started.
        """
        self._leave()
        _lean_dojo()
        self._confirm.start()

    def check(self, request: Request) -> RawReport:
        """Refuse by Dojo's word, or ask the deciding backend.

        Raises:
          WorkerDiedError: a Lean process ended before the proof's time was used up.
          BackendError: LeanDojo cannot start Lean at the theorem.
        """
        self._interrupted = False
        refused = self._refusal(request)
        return self._confirm.check(request) if refused is None else refused

    def interrupt(self) -> None:
        """Kill Dojo's process and the deciding backend's."""
        self._interrupted = True
        self._kill()
        self._confirm.interrupt()

    def close(self) -> None:
        """End all processes."""
        self._leave()
        self._confirm.close()

    def _refusal(self, request: Request) -> RawReport | None:
        """Why Dojo does not accept a proof; None when it does or cannot tell."""
        if not isinstance(request, CheckRequest) or not isinstance(request.proof, str):
            return None
        key = (request.name, request.header, request.statement)
        # Dojo runs one tactic; parentheses make one of many.
        tactic = f"(\n{request.proof}\n)"
        line = json.dumps({"sid": 0, "cmd": tactic}, ensure_ascii=False)
        if key not in self._theorems or len(line.encode()) > LINE_BYTES:
            return None
        dojo, state = self._enter(key)
        wall_s = request.limits.wall_s
        dojo.proc.timeout = wall_s
        timer = threading.Timer(wall_s + GRACE_S, self._kill)
        timer.start()
        started = time.monotonic()
        lean_dojo = _lean_dojo()
        try:
            answer = dojo.run_tac(state, tactic)
        except (
            lean_dojo.DojoTacticTimeoutError,
            lean_dojo.DojoCrashError,
            OSError,
        ) as error:
            seconds = time.monotonic() - started
            self._leave()
            if seconds < wall_s or self._interrupted:
                raise WorkerDiedError(f"Dojo's Lean ended: {error!r}") from error
            return RawReport(timed_out=True, seconds=seconds)
        except AssertionError:
            # LeanDojo could not take a printed goal apart.
            return None
        finally:
            timer.cancel()
        return _report(answer, time.monotonic() - started)

    def _enter(self, key: tuple[str, str, str]) -> tuple[Any, Any]:
        """A Dojo at the theorem, and its first tactic state."""
        if self._session is not None and self._session[0] == key:
            return self._session[1]
        self._leave()
        lean_dojo = _lean_dojo()
        found = self._theorems[key]
        theorem = lean_dojo.Theorem(self._repo, Path(found.file), found.full_name)
        with _entering:
            try:
                self._dojo = lean_dojo.Dojo(theorem, timeout=START_S)
                entered = self._dojo.__enter__()
            # LeanDojo reports what it does not expect by assertions.
            except (lean_dojo.DojoInitError, AssertionError, ValueError) as error:
                self._leave()
                raise BackendError(
                    f"{found.file}: expected Dojo to open {found.full_name}, got "
                    f"{error!r}; check that `lake env lean` works in LeanDojo's traced "
                    "copy of the repository."
                ) from error
        self._session = (key, entered)
        return entered

    def _leave(self) -> None:
        self._session = None
        dojo, self._dojo = self._dojo, None
        # A Dojo that failed to enter has no process or no file yet.
        with suppress(AttributeError):
            if dojo is not None:
                dojo.__exit__(None, None, None)

    def _kill(self) -> None:
        process = getattr(self._dojo, "proc", None)
        if process is not None:
            kill = importlib.import_module("lean_dojo.interaction.dojo")
            kill.kill_descendants(process.pid)


def _report(answer: Any, seconds: float) -> RawReport | None:
    """A refusal by type of answer; text decides only that `confirm` is asked."""
    lean_dojo = _lean_dojo()
    if isinstance(answer, lean_dojo.ProofFinished):
        return None
    kind = ""
    if isinstance(answer, lean_dojo.TacticState):
        kind, text = "Tactic.unsolvedGoals", f"unsolved goals\n{answer.pp}"
    elif isinstance(answer, lean_dojo.LeanError):
        if answer.error.startswith(PARSE_ERROR):
            return None
        text = answer.error
    else:
        text = "the proof rests on sorry"
    message = RawMessage(severity="error", line=1, column=0, kind=kind, text=text)
    return RawReport(has_errors=True, messages=(message,), seconds=seconds)


def _lean_dojo() -> Any:
    """The package; importing it runs git and reads LeanDojo's environment variables.

    With GITHUB_ACCESS_TOKEN set the import also calls GitHub.
    """
    try:
        return importlib.import_module("lean_dojo")
    except ModuleNotFoundError as error:
        raise InstallError(
            "Verification through Dojo needs the package lean-dojo, which is missing "
            "(it needs Python below 3.13); run `pip install fdjax[lean-dojo]`."
        ) from error
    except Exception as error:  # it runs git and may ask GitHub: all can fail
        raise BackendError(
            f"Importing lean_dojo was expected to succeed, got {error!r}; it needs git "
            "2.25 or later, and a network when GITHUB_ACCESS_TOKEN is set."
        ) from error


def _version() -> str:
    try:
        return metadata.version("lean-dojo")
    except metadata.PackageNotFoundError:
        return "missing"
