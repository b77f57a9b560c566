"""What of an attempt and of Lean's words a model is shown, and what is left out."""

from dataclasses import dataclass

from fdjax.feedback.compiler import UNSOLVED
from fdjax.feedback.writer import Attempt
from fdjax.lean import Diagnostic, Status
from fdjax.ranges import Whole, require_fields
from fdjax.records import Problem

__all__ = ["Caps", "Excerpt", "Message", "excerpt", "fence", "theorem_of"]

_SAID = {
    Status.VERIFIED: "Lean accepts it.",
    Status.REJECTED: "Lean rejects it.",
    Status.UNSAFE: "It was not run, because its text is not allowed.",
    Status.TIMEOUT: "Lean ran out of time or memory on it.",
    Status.CRASHED: "Lean gave no verdict on it.",
}


@dataclass(frozen=True, kw_only=True)
class Caps:
    """How much is shown. Only ends are cut, and the text says how much of them."""

    theorem_characters: int = 8_000
    """Characters of header and statement, and of the problem in words."""
    attempt_lines: int = 300
    """Lines of an attempt."""
    attempt_characters: int = 12_000
    """Characters of an attempt."""
    messages: int = 5
    """Errors of Lean; later ones are often consequences of the first."""
    message_characters: int = 1_500
    """Characters of one message."""
    context_lines: int = 2
    """Lines of the attempt shown before and after those that a message is about."""
    goals: int = 3
    """Open goals that no shown message tells of."""
    goal_characters: int = 1_500
    """Characters of one goal."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            theorem_characters=Whole(1),
            attempt_lines=Whole(1),
            attempt_characters=Whole(1),
            messages=Whole(0),
            message_characters=Whole(1),
            context_lines=Whole(0),
            goals=Whole(0),
            goal_characters=Whole(1),
        )


@dataclass(frozen=True, kw_only=True)
class Message:
    """One error of Lean as a template shows it."""

    place: str
    """Where it points, in words."""
    text: str
    """What Lean says, perhaps cut."""
    code: str
    """The lines around, numbered, with marks; empty where it points elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """One attempt as a template shows it."""

    code: str
    """Its lines, numbered, perhaps cut."""
    outcome: str
    """What was decided about it, in a sentence."""
    messages: tuple[Message, ...] = ()
    """Lean's errors."""
    more_messages: int = 0
    """Errors left out."""
    goals: tuple[str, ...] = ()
    """Goals left open, perhaps cut."""
    more_goals: int = 0
    """Goals left out."""
    cut_characters: int = 0
    """Characters left out of all of it."""


def theorem_of(problem: Problem, caps: Caps) -> tuple[str, str, int]:
    """Header and statement; the problem in words; the characters left out of both."""
    parts = (problem.header.strip("\n"), problem.statement.strip("\n"))
    theorem, cut = _cut("\n\n".join(filter(None, parts)), caps.theorem_characters)
    informal, more = _cut(problem.informal.strip(), caps.theorem_characters)
    return theorem, informal, cut + more


def excerpt(attempt: Attempt, caps: Caps) -> Excerpt:
    """What a template shows of an attempt.

    The proof, or the whole text where no proof was found in it.
    """
    text = attempt.proof if attempt.proof.strip() else attempt.text
    lines = text.split("\n")
    code, cut = _code(lines, caps)
    verdict = attempt.verdict
    errors = () if verdict is None else verdict.errors
    messages = []
    for error in errors[: caps.messages]:
        message, left_out = _message(error, lines, caps)
        messages.append(message)
        cut += left_out
    # Lean tells of goals in its errors; here are those that a cut has taken away.
    told = "\n".join(message.text for message in messages)
    open_goals = () if verdict is None else verdict.goals
    untold = [goal.text for goal in open_goals if goal.text not in told]
    goals = []
    for goal in untold[: caps.goals]:
        goal, left_out = _cut(goal, caps.goal_characters)
        goals.append(goal)
        cut += left_out
    return Excerpt(
        code=code,
        outcome=_outcome(attempt),
        messages=tuple(messages),
        more_messages=len(errors) - len(messages),
        goals=tuple(goals),
        more_goals=len(untold) - len(goals),
        cut_characters=cut + sum(len(e.text) for e in errors[caps.messages :]),
    )


def _code(lines: list[str], caps: Caps) -> tuple[str, int]:
    """Numbered lines from the first on, and the number of characters left out."""
    kept: list[str] = []
    size = 0
    for line in lines[: caps.attempt_lines]:
        if kept and size + len(line) > caps.attempt_characters:
            break
        kept.append(line)
        size += len(line) + 1
    left_out = len("\n".join(lines)) - len("\n".join(kept))
    kept[-1], more = _cut(kept[-1], caps.attempt_characters)
    numbered = [_numbered(number, line) for number, line in enumerate(kept, start=1)]
    if len(kept) < len(lines):
        count = len(lines) - len(kept)
        numbered.append(f"[… {count:,} more {_plural(count, 'line')} left out]")
    return "\n".join(numbered), left_out + more


def _message(error: Diagnostic, lines: list[str], caps: Caps) -> tuple[Message, int]:
    """An error with the code around it, and the number of characters left out."""
    text, cut = _cut(error.text.strip(), caps.message_characters)
    place, code = f"line {error.line}", ""
    if not error.in_proof:
        place = "in the statement, not in the proof"
    elif error.kind == UNSOLVED and (error.line, error.column) == (1, 0):
        place = "at the end of the proof"
    elif error.line <= len(lines):
        code, more = _cut(_around(error, lines, caps), caps.message_characters)
        cut += more
    return Message(place=place, text=text, code=code), cut


def _around(error: Diagnostic, lines: list[str], caps: Caps) -> str:
    """The lines that a message is about, marked with `>`, and their neighbours.

    Within one line carets mark what it is about; of a long span its beginning is shown.
    """
    first, end_line = error.line, error.end_line or error.line
    last = min(max(end_line, first), first + caps.context_lines, len(lines))
    start = max(first - caps.context_lines, 1)
    stop = min(last + caps.context_lines, len(lines))
    rows = []
    for number in range(start, stop + 1):
        mark = "> " if first <= number <= last else "  "
        rows.append(mark + _numbered(number, lines[number - 1]))
        if number == first == end_line:
            end = error.column + 1 if error.end_column is None else error.end_column
            margin = " " * (len(mark + _numbered(number, "")) + error.column)
            rows.append(margin + "^" * max(end - error.column, 1))
    return "\n".join(rows)


def _numbered(number: int, line: str) -> str:
    return f"{number:>4} | {line}"


def _outcome(attempt: Attempt) -> str:
    """What was decided, in a sentence or two."""
    judgement, verdict = attempt.judgement, attempt.verdict
    if verdict is None:
        said = "It passed." if judgement.passed else "It did not pass."
    else:
        said = _SAID[verdict.status]
    reason = judgement.reason or ("" if verdict is None else verdict.reason)
    told = verdict is not None and bool(verdict.errors)
    # Lean's reason repeats its first error.
    return said if told or not reason else f"{said} {reason}"


def _cut(text: str, characters: int) -> tuple[str, int]:
    """The beginning of a text with a note on how much follows, and that number."""
    left_out = len(text) - characters
    if left_out <= 0:
        return text, 0
    kept = text[:characters]
    note = f"[… {left_out:,} more {_plural(left_out, 'character')} left out]"
    return f"{kept}\n{note}", left_out


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"


def fence(text: str) -> str:
    """A Markdown fence that the text cannot close: longer than its backticks."""
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return "`" * max(3, longest + 1)
