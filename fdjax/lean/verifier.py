"""Check proofs: safety scan, cache, worker pool, judgement."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from fdjax.lean.backend import Backend, Limits
from fdjax.lean.verdict import Diagnostic, Verdict
from fdjax.records import Problem

__all__ = ["StatementReport", "Statistics", "Verifier"]


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Counts since the verifier was made."""

    checked: int = 0
    cached: int = 0
    crashed: int = 0
    restarts: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StatementReport:
    """Whether a problem's own statement elaborates."""

    ok: bool
    reason: str = ""
    diagnostics: tuple[Diagnostic, ...] = ()


class Verifier:
    """Checks proofs of problems; a context manager."""

    def __init__(
        self,
        backend_factory: Callable[[], Backend],
        *,
        workers: int = 2,
        limits: Limits = Limits(),
        cache_path: Path | None = None,
    ) -> None: ...

    def verify(
        self,
        items: Sequence[tuple[Problem, str]],
        progress: Callable[[int], None] | None = None,
    ) -> list[Verdict]:
        """One verdict for each (problem, proof), in the same order."""
        ...

    def check_statements(self, problems: Sequence[Problem]) -> list[StatementReport]:
        """Whether each problem's statement elaborates, in the same order."""
        ...

    @property
    def statistics(self) -> Statistics: ...

    def start(self) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
