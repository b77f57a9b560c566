"""The answer in what a policy writes."""

from collections.abc import Callable
from dataclasses import dataclass

from fdjax.lean import Submission
from fdjax.records import Problem

__all__ = ["Answer", "Extract", "whole_text"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What Lean is shown of a completion."""

    submission: Submission | None
    """Tactic text or a whole file; None where the completion has no answer."""
    start: int = 0
    """Characters of the completion before the answer."""
    reason: str = ""
    """Why there is no answer, in one sentence."""


Extract = Callable[[Problem, str], Answer]
"""Finds the answer: `(problem, completion) -> Answer`."""


def whole_text(problem: Problem, text: str) -> Answer:
    """The whole completion is tactic text; it continues the prompt after `:= by`."""
    del problem
    return Answer(submission=text)
