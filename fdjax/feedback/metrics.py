"""What feedback cost and how it failed, as metrics: a function of the feedback."""

from collections import Counter
from collections.abc import Sequence

from fdjax.feedback.failure import Kind
from fdjax.feedback.usage import Usage
from fdjax.feedback.writer import Feedback
from fdjax.records import Mean, Metrics

__all__ = ["feedback_metrics"]

_MISSING = "feedback/missing"


def feedback_metrics(notes: Sequence[Feedback]) -> Metrics:
    """Means over attempts, so that those of several hosts add up.

    Metrics: feedback/requests, feedback/retries, feedback/input_tokens,
    feedback/output_tokens, feedback/cost_usd (US dollars), feedback/estimated (requests
    whose tokens were estimated), feedback/recorded (answers that cost nothing),
    feedback/cut_characters (left out of questions), feedback/stripped_lines (left out
    of feedback): all per attempt; feedback/missing (no feedback at all),
    feedback/missing_<kind> for each `Kind` that occurred: shares of the attempts;
    feedback/leak, feedback/leak_new (shares of a known proof, of `Leak`),
    feedback/leak_longest_run (tokens): where they were measured.
    """
    count = len(notes)
    used = sum((note.usage for note in notes), Usage())
    kinds = Counter(note.kind for note in notes if note.kind is not None)
    totals = {
        "feedback/requests": used.requests,
        "feedback/retries": used.retries,
        "feedback/input_tokens": used.input_tokens,
        "feedback/output_tokens": used.output_tokens,
        "feedback/cost_usd": used.cost_usd,
        "feedback/estimated": used.estimated,
        "feedback/recorded": used.recorded,
        "feedback/cut_characters": used.cut_characters,
        "feedback/stripped_lines": sum(note.stripped_lines for note in notes),
        _MISSING: kinds.total(),
        **{f"{_MISSING}_{kind}": kinds[kind] for kind in Kind if kinds[kind]},
    }
    metrics = {name: Mean(float(total), count) for name, total in totals.items()}
    leaks = [note.leak for note in notes if note.leak is not None]
    if leaks:
        metrics |= {
            "feedback/leak": Mean(sum(leak.share for leak in leaks), len(leaks)),
            "feedback/leak_new": Mean(
                sum(leak.new_share for leak in leaks), len(leaks)
            ),
            "feedback/leak_longest_run": Mean(
                float(sum(leak.longest_run for leak in leaks)), len(leaks)
            ),
        }
    return metrics
