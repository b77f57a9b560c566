"""The answer in what a model writes: tactics or a whole file, or that it has none."""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace

from fdjax.judge.fences import CLOSING, LANGUAGES, OPENING, Block, block_at, read
from fdjax.lean.facts.backend import Submission, WholeFile
from fdjax.lean.facts.commands import is_file
from fdjax.lean.facts.lexer import code
from fdjax.records import Problem

__all__ = [
    "NO_FENCE",
    "UNFINISHED_FENCE",
    "UNFINISHED_THINKING",
    "AfterThinking",
    "Answer",
    "Extract",
    "extract_name",
    "last_fence",
    "up_to_fence",
    "whole_text",
]

UNFINISHED_THINKING = "its thinking does not end"
"""The reason where a text ends before its `</think>`."""
UNFINISHED_FENCE = "it is cut off: its last code fence is not closed"
"""The reason where a text ends inside its last block of Lean."""
NO_FENCE = "it has no code fence of Lean behind its thinking"
"""The reason where a text has no block of Lean."""

_BLANK_LINES = re.compile(r"(?:[ \t\r]*\n)*")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a completion gives to be judged."""

    submission: Submission | None
    """Tactic text or a whole file; None where there is no answer."""
    start: int = 0
    """Characters of the completion's text before the answer's text."""
    reason: str = ""
    """Why there is no answer; empty where there is one."""


Extract = Callable[[Problem, str], Answer]
"""Finds the answer to a problem in the whole text of a completion."""


def whole_text(problem: Problem, text: str) -> Answer:
    """The completion itself, as the tactics behind `:= by`."""
    return Answer(submission=text)


def last_fence(problem: Problem, text: str) -> Answer:
    r"""The last fenced block of Lean behind the model's thinking.

    A block is marked `lean4`, `lean`, `tactics` or `tactic`; where none is, unmarked
    ones count (`fences.read` says what a block is). If it begins with a command, it is
    a `WholeFile`, whose theorem must be the problem's own. Otherwise it is tactic text;
    a `by` or `:= by` at its beginning becomes blanks.

    >>> problem = Problem(name="t", statement="theorem t (h : p ∧ q) : q ∧ p")
    >>> last_fence(problem, "Swap.\n```lean4\nby\n  exact h.symm\n```").submission
    '  exact h.symm\n'
    """
    written = read(text)
    if written.is_thinking:
        return Answer(submission=None, reason=UNFINISHED_THINKING)
    marked = [block for block in written.blocks if block.mark in LANGUAGES]
    blocks = marked or [block for block in written.blocks if not block.mark]
    if not blocks:
        return Answer(submission=None, reason=NO_FENCE)
    return _in_block(blocks[-1], text)


def up_to_fence(problem: Problem, text: str) -> Answer:
    r"""The completion up to the fence that closes the block in which it begins.

    For prompts that end inside a block of Lean.

    >>> problem = Problem(name="t", statement="theorem t : True")
    >>> up_to_fence(problem, "  trivial\n```\nThat is all.").submission
    '  trivial\n'
    """
    block, _ = block_at(text, 0)
    return _in_block(block, text)


@dataclass(frozen=True, kw_only=True)
class AfterThinking:
    r"""An `Extract` that looks only behind the thinking with which a text begins.

    `last_fence` needs it only where the prompt itself opens the thinking: then a text
    without `</think>` is unfinished.

    >>> problem = Problem(name="t", statement="theorem t : True")
    >>> AfterThinking()(problem, "<think>\nClear.\n</think>\n\n  trivial").submission
    '  trivial'
    """

    extract: Extract = whole_text
    """Finds the answer in the rest."""
    opened: bool = False
    """Whether the prompt ends with `<think>`."""

    def __call__(self, problem: Problem, text: str) -> Answer:
        """The answer to a problem in the whole text of a completion."""
        start, thinks = 0, self.opened
        while thinks or text[start:].lstrip().startswith(OPENING):
            end = text.find(CLOSING, start)
            if end < 0:
                return Answer(submission=None, reason=UNFINISHED_THINKING)
            start, thinks = end + len(CLOSING), False
        if start and (blank := _BLANK_LINES.match(text, start)):
            start = blank.end()
        answer = self.extract(problem, text[start:])
        if answer.submission is None:
            return answer
        return replace(answer, start=answer.start + start)


def extract_name(extract: Callable[..., object]) -> str:
    """An `Extract` in words that are the same in every process, for records.

    >>> extract_name(AfterThinking(extract=last_fence, opened=True))
    'AfterThinking(extract=last_fence, opened=True)'
    """
    if not is_dataclass(extract):
        return getattr(extract, "__qualname__", type(extract).__qualname__)
    values = {field.name: getattr(extract, field.name) for field in fields(extract)}
    parts = ", ".join(
        f"{name}={extract_name(value) if callable(value) else repr(value)}"
        for name, value in values.items()
    )
    return f"{type(extract).__qualname__}({parts})"


def _in_block(block: Block, text: str) -> Answer:
    if not block.closed:
        return Answer(submission=None, reason=UNFINISHED_FENCE)
    if is_file(block.text):
        return Answer(submission=WholeFile(block.text), start=block.start)
    tactics, dropped = _without_by(block.text)
    start = block.start
    for _ in range(dropped):
        start = text.index("\n", start) + 1
    return Answer(submission=tactics, start=start)


def _without_by(tactics: str) -> tuple[str, int]:
    """Tactic text without the `by` before it, and how many lines went with it.

    Columns stay what they were: blanks stand where `by` stood.
    """
    end = 0
    for token in code(tactics):
        if token.text not in (":=", "by"):
            break
        end = token.end
        if token.text == "by":
            break
    if not tactics[:end].endswith("by"):
        return tactics, 0
    line = tactics.rfind("\n", 0, end) + 1
    rest = " " * (end - line) + tactics[end:]
    dropped = tactics.count("\n", 0, line)
    first, line_end, others = rest.partition("\n")
    if line_end and not first.strip():
        return others, dropped + 1
    return rest, dropped
