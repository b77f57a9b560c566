"""What provers hand in that is no submission."""

import re

from fdjax.lean.facts.backend import Submission, WholeFile
from fdjax.lean.facts.commands import begins_a_command, first_word, is_file
from fdjax.lean.facts.lexer import without_comments
from fdjax.lean.facts.policy import LONGEST

__all__ = ["misfit"]

_FENCED = re.compile(r"^[ \t]*```", re.MULTILINE)


def misfit(submission: Submission) -> str:
    """What makes a submission no Lean text of its sort; empty when nothing is plain.

    No verdict rests on it: it goes into the reasons of those that are negative anyway.
    """
    is_whole = isinstance(submission, WholeFile)
    text = (submission.text if is_whole else submission)[:LONGEST]
    is_answer = _FENCED.search(without_comments(text)) or text.lstrip()[:7] == "<think>"
    word = first_word(text)
    if is_whole and (is_answer or (word and not begins_a_command(word))):
        return "this is no Lean file: prose or a code fence before the first command"
    if is_answer:
        return "this is no tactic text: prose or a code fence around it"
    if not is_whole and is_file(text):
        return "a whole theorem is given as `proof`: give it as `source`"
    if not is_whole and word == "by":
        return "the proof begins with `by`, which is there already: leave it out"
    return ""
