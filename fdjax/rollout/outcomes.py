"""What Lean and the feedback writer say of attempts; where they fail, that is data."""

import logging
from collections.abc import Sequence

from fdjax.errors import BackendError, DataError
from fdjax.feedback import Attempt, Feedback, Provider
from fdjax.lean import Status, Verdict, Verifier
from fdjax.records import Problem

__all__ = ["verify_attempts", "write_feedback"]

_log = logging.getLogger(__name__)


def verify_attempts(
    verifier: Verifier, attempts: Sequence[tuple[Problem, str]]
) -> list[Verdict]:
    """One verdict for each (problem, proof), in order.

    An outage leaves verdicts missing, not wrong: attempts that were not decided before
    it are CRASHED, and all are where Lean decided none of them. A statement that is
    broken itself costs its own attempts, all of them and no others.

    Raises:
      InstallError: Lean is not installed; no later rollout would do better.
    """
    decided: dict[int, Verdict] = {}
    try:
        verdicts = verifier.verify(
            attempts, decided=decided.__setitem__, broken_statements="reject"
        )
    except BackendError as error:
        missing = Verdict(status=Status.CRASHED, reason=f"the verifier failed: {error}")
        if not any(_by_lean(verdict) for verdict in decided.values()):
            # Unsafe texts and known proofs alone are no sample of what was attempted.
            decided = {}
        verdicts = [decided.get(row, missing) for row in range(len(attempts))]
        _log.warning(
            "%d of %d attempts have no verdict, because the verifier failed: %s",
            len(attempts) - len(decided),
            len(attempts),
            error,
        )
    faults = {
        (problem.header, problem.statement): verdict
        for (problem, _), verdict in zip(attempts, verdicts, strict=True)
        if verdict.broken_statement
    }
    # Lean never saw unsafe attempts, nor that their statement is broken.
    verdicts = [
        faults.get((problem.header, problem.statement), verdict)
        for (problem, _), verdict in zip(attempts, verdicts, strict=True)
    ]
    broken = [row for row, verdict in enumerate(verdicts) if verdict.broken_statement]
    if broken:
        _log.warning(
            "%d of %d attempts are at broken statements, among them %s: %s",
            len(broken),
            len(attempts),
            attempts[broken[0]][0].name,
            verdicts[broken[0]].reason,
        )
    return verdicts


def _by_lean(verdict: Verdict) -> bool:
    """Whether Lean has just decided: not the scan of the text, nor the cache."""
    return not (verdict.missing or verdict.cached or verdict.status is Status.UNSAFE)


def write_feedback(provider: Provider, attempts: Sequence[Attempt]) -> list[Feedback]:
    """Feedback on each attempt, in order; an error where there is none.

    Attempts without a verdict are not shown to the provider.
    """
    judged = [row for row, each in enumerate(attempts) if not each.verdict.missing]
    try:
        written = list(provider.write([attempts[row] for row in judged]))
        if len(written) != len(judged) or not all(
            isinstance(note, Feedback) for note in written
        ):
            raise DataError(
                f"{type(provider).__name__}.write: expected {len(judged)} Feedback "
                f"objects, one for each attempt in order, got {len(written)} of "
                f"{sorted({type(note).__name__ for note in written})}"
            )
    # The provider is anyone's code, and what it calls may fail in any way.
    except Exception as error:  # noqa: BLE001
        reason = f"the feedback provider failed: {type(error).__name__}: {error}"
        _log.warning("No feedback on %d attempts: %s", len(judged), reason)
        written = [Feedback(error=reason)] * len(judged)
    notes = [Feedback(error=each.verdict.reason) for each in attempts]
    for row, note in zip(judged, written, strict=True):
        notes[row] = note
    return notes
