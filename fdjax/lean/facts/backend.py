"""What the verifier asks of a Lean process, and what comes back."""

from dataclasses import dataclass
from typing import Protocol

from fdjax.errors import BackendError
from fdjax.lean.facts.verdict import Severity
from fdjax.ranges import Number, Whole, require

__all__ = [
    "DEFAULT_LIMITS",
    "WALL_S",
    "Backend",
    "CheckRequest",
    "Limits",
    "Place",
    "RawMessage",
    "RawReport",
    "Request",
    "RunRequest",
    "Submission",
    "Target",
    "WholeFile",
    "WorkerDiedError",
]


WALL_S = Number(least=0.001, most=86_400)
"""Seconds that a proof may be given, a day at most."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one proof may use."""

    wall_s: float = 10.0
    """Wall time of the proof's elaboration, in seconds; the statement's own
    elaboration does not count."""
    heartbeats: int = 200_000
    """Lean's `maxHeartbeats` (thousands of small allocations). Lean's default, 200,000,
    leaves a header's own setting in force; another value overrides it. A proof that
    runs out is REJECTED: the count is the same on every machine."""
    memory_mb: int = 2048
    """Memory of one worker, in MiB; the embedded Lean uses at most 2048, a native one
    with Mathlib needs 8192 and more."""
    output_bytes: int = 65_536
    """UTF-8 bytes of message text kept; errors are kept before warnings."""

    def __post_init__(self) -> None:
        for name, rule, reason in (
            ("wall_s", WALL_S, "a proof is given seconds, a day at most"),
            ("heartbeats", Whole(0, 10**9), "0 means no limit"),
            ("memory_mb", Whole(512, 2**20), "Lean's library alone needs about 400"),
            ("output_bytes", Whole(0, 2**30), "a verdict is held in memory"),
        ):
            require(f"Limits.{name}", getattr(self, name), rule, remedy=reason)


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class WholeFile:
    """A Lean file that must contain a theorem of the problem's name and type.

    It is elaborated on top of the problem's header. Its own `import` lines are not
    executed: each must name a module that the header loads.
    """

    text: str
    """The file, untrusted."""


Place = tuple[int, int]
"""A line, from 1 on, and a column in code points, from 0 on."""

Submission = str | WholeFile
"""Tactic text as it follows `:= by` on a new line, or a whole file."""


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """One submission to elaborate against its trusted statement."""

    name: str
    """Name of the theorem the statement declares, as it is spelled there."""
    header: str
    """Trusted source before the statement."""
    statement: str
    """Trusted source up to, not including, `:=`; one command."""
    proof: Submission | None
    """Untrusted submission; None checks the statement alone."""
    limits: Limits = DEFAULT_LIMITS
    """What this elaboration may use."""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A file to elaborate for its messages; nothing is decided about it."""

    source: str
    """The whole file, imports included; untrusted."""
    limits: Limits = DEFAULT_LIMITS
    """What this elaboration may use."""


Request = CheckRequest | RunRequest
"""What a backend may be asked."""


@dataclass(frozen=True, kw_only=True)
class RawMessage:
    """A message as Lean gave it.

    Positions count from the statement's first line, for a whole file from its own.
    """

    severity: Severity
    line: int
    column: int
    end_line: int | None = None
    end_column: int | None = None
    kind: str = ""
    text: str = ""

    @property
    def start(self) -> Place:
        """Line and column of the first character."""
        return self.line, self.column

    @property
    def end(self) -> Place | None:
        """Line, and column after the last character; None when unknown."""
        if self.end_line is None or self.end_column is None:
            return None
        return self.end_line, self.end_column


@dataclass(frozen=True, kw_only=True)
class Target:
    """Facts about the constant with the problem's name, read from the kernel."""

    is_theorem: bool
    """Whether the constant is a theorem (not an axiom, definition or opaque)."""
    matches_statement: bool
    """Whether universe names and type equal the trusted statement's."""
    axioms: tuple[str, ...]
    """Every axiom it depends on, exact names."""


@dataclass(frozen=True, kw_only=True)
class RawReport:
    """What trusted code observed while one request was elaborated.

    The answer to a `RunRequest` has messages, `has_errors`, `left_out`, `timed_out`,
    `out_of_memory`, `refused` and `seconds` only.
    """

    statement_error: str = ""
    """Why the trusted statement itself cannot be used; empty when it can."""
    in_header: bool = False
    """Whether it is the header that cannot be used: then messages count from its first
    line."""
    no_proof: bool = False
    """Whether the parser finds nothing behind our own `:= by` that could prove."""
    has_errors: bool = False
    """Whether any message has severity `error`, shown or cut."""
    messages: tuple[RawMessage, ...] = ()
    """Messages in source order, within the output limit."""
    left_out: bool = False
    """Whether an error or a warning is missing from `messages`."""
    timed_out: bool = False
    """Whether the proof used up its wall time."""
    out_of_memory: bool = False
    """Whether the proof used up the worker's memory."""
    refused: str = ""
    """What the parsed proof contains against the policy; empty when nothing."""
    left_proof: bool = False
    """Whether another command followed the proof."""
    target: Target | None = None
    """The constant with the problem's name; None where there is none."""
    seconds: float = 0.0
    """Wall time of the proof's elaboration."""


class WorkerDiedError(BackendError):
    """The Lean process ended or stopped answering during a request."""

    def __init__(
        self, message: str, *, innocent: bool = False, exhausted: bool = False
    ) -> None:
        """Say what happened.

        Args:
          message: for people.
          innocent: whether the proof cannot have caused it: the process was still
            starting, was stopped from outside, or its machine was lost.
          exhausted: whether Lean itself said, while it elaborated the proof, that its
            memory or stack was used up.
        """
        super().__init__(message)
        self.innocent = innocent
        """Whether the proof cannot have caused it."""
        self.exhausted = exhausted
        """Whether Lean said that its memory or stack was used up by the proof."""


class Backend(Protocol):
    """One Lean process; used by one thread at a time.

    `interrupt` alone may be called from another thread.
    """

    @property
    def identity(self) -> str:
        """Toolchain and host version: verdicts of equal identity are equal."""
        ...

    def start(self) -> None:
        """Start the process; returns when it can check.

        Raises:
          BackendError: it cannot be started.
        """
        ...

    def check(self, request: Request) -> RawReport:
        """Elaborate one request; starts a process where none is running.

        Raises:
          WorkerDiedError: the process ended before the proof's time was used up.
          BackendError: a process cannot be started.
        """
        ...

    def interrupt(self) -> None:
        """Make a running `check` end soon with `WorkerDiedError`."""
        ...

    def close(self) -> None:
        """End the process and everything it started; may be called twice."""
        ...
