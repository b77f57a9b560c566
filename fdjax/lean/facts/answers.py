"""What provers write: the Lean in an answer in prose, and what is no submission."""

import re

from fdjax.lean.facts.backend import Submission, WholeFile
from fdjax.lean.facts.commands import begins_a_command, first_word, is_file
from fdjax.lean.facts.lexer import code, without_comments
from fdjax.lean.facts.policy import LONGEST

__all__ = ["misfit", "submission_in"]

_FENCED = re.compile(r"^[ \t]*```", re.MULTILINE)
_FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<marks>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)")
_LANGUAGES = ("lean", "lean4", "tactic", "tactics")


def submission_in(answer: str) -> Submission | None:
    r"""The last fenced block of Lean behind the thinking; None when there is none.

    Blocks are Markdown's: three or more backticks or tildes, closed by as many or more
    on a line of their own, by the next block of Lean or by the answer's end (sampling
    may have stopped there). They are marked `lean`, `lean4`, `tactics` or `tactic`;
    where none is, unmarked ones count. What stands before the last `</think>`, or
    behind a `<think>` that is not closed, does not. Whoever lets a model answer in
    prose calls this on its text and verifies what comes; the text is not judged here:

        submission = submission_in(answer)
        [verdict] = verifier.verify([(problem, submission or "")])

    Returns:
      A `WholeFile` if the block begins with a command; else tactic text, with blanks in
      the place of a `by` or `:= by` before it.

    >>> submission_in("Swap them.\n```lean4\nby\n  exact ⟨h.2, h.1⟩\n```\n")
    '  exact ⟨h.2, h.1⟩\n'
    """
    answer = answer.replace("\r\n", "\n").rpartition("</think>")[2]
    blocks = _blocks(answer.partition("<think>")[0])
    marked = [text for mark, text in blocks if mark in _LANGUAGES]
    texts = marked or [text for mark, text in blocks if not mark]
    if not texts:
        return None
    return WholeFile(texts[-1]) if is_file(texts[-1]) else _without_by(texts[-1])


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


def _blocks(answer: str) -> list[tuple[str, str]]:
    """The first word behind each opening fence, in lower case, and what is fenced.

    Blocks of nothing but blanks are left out.
    """
    blocks: list[tuple[str, list[str]]] = []
    opening: re.Match[str] | None = None
    for line in answer.split("\n"):
        fence = _FENCE.fullmatch(line.rstrip())
        if fence and opening and not fence["marks"].startswith(opening["marks"]):
            fence = None  # of another kind, or shorter: part of the block
        mark = (fence["info"].lower().split() or [""])[0] if fence else ""
        if fence and (opening is None or mark in _LANGUAGES):
            blocks.append((mark, []))
            opening = fence
        elif fence and not mark:
            opening = None
        elif opening:
            blocks[-1][1].append(f"{line.removeprefix(opening['indent'])}\n")
    texts = [(mark, "".join(lines)) for mark, lines in blocks]
    return [(mark, text) for mark, text in texts if text.strip()]


def _without_by(tactics: str) -> str:
    """Tactic text without the `by` before it; columns stay what they were."""
    end = 0
    for token in code(tactics):
        if token.text not in (":=", "by"):
            break
        end = token.end
        if token.text == "by":
            break
    if not tactics[:end].endswith("by"):
        return tactics
    rest = " " * (end - (tactics.rfind("\n", 0, end) + 1)) + tactics[end:]
    first, line_end, others = rest.partition("\n")
    return others if line_end and not first.strip() else rest
