"""What Lean said of a file, as the model reads it."""

from fdjax.lean import Diagnostic, Elaboration

__all__ = ["messages_text"]

_ORDER = ("error", "warning", "information")
_ENDINGS = {
    "timeout": "Lean was stopped: the file used up its time.",
    "memory": "Lean was stopped: the file used up its memory.",
    "crashed": "Lean broke down on this file twice.",
}


def messages_text(file: str, found: Elaboration) -> str:
    """One summary line, then the messages, errors first, as Lean's command prints them.

    No time is in it: equal files have equal texts.

    Args:
      file: what the file is called in front of each message.
      found: what Lean said.
    """
    if found.ended == "unsafe":
        return f"Not run: {found.reason}."
    ordered = sorted(found.diagnostics, key=lambda each: _ORDER.index(each.severity))
    lines = [_ENDINGS.get(found.ended) or _summary(found)]
    lines += [_line(file, each) for each in ordered]
    return "\n".join(lines)


def _summary(found: Elaboration) -> str:
    counts = [
        sum(each.severity == severity for each in found.diagnostics)
        for severity in ("error", "warning")
    ]
    text = ", ".join(
        f"{count} {word}{'' if count == 1 else 's'}"
        for count, word in zip(counts, ("error", "warning"), strict=True)
    )
    rest = "" if found.complete else "; there were more, too long to show"
    return f"{text}{rest}." if any(counts) or rest else "No errors, no warnings."


def _line(file: str, each: Diagnostic) -> str:
    severity = "info" if each.severity == "information" else each.severity
    return f"{file}:{each.line}:{each.column}: {severity}: {each.text.rstrip()}"
