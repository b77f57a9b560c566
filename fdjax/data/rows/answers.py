"""Answers left open before a theorem, and filled in from the comment behind them."""

from collections.abc import Iterator, Sequence

from fdjax.lean.facts.lexer import Token, code, tokens

__all__ = ["fill_answers", "open_answer"]

_DEFINITIONS = frozenset(("abbrev", "def"))


def open_answer(source: str) -> str | None:
    """The first line of Lean source with a `sorry` that is code; None without any."""
    for token in code(source):
        if token.text == "sorry":
            start = source.rfind("\n", 0, token.start) + 1
            return source[start:].partition("\n")[0].strip()
    return None


def fill_answers(source: str) -> str:
    r"""Lean source with the answers that its comments give.

    PutnamBench leaves an answer open and writes it in the comment that follows:

    >>> print(fill_answers("abbrev two : Nat := sorry\n-- 1 + 1\ntheorem t : two = 2"))
    abbrev two : Nat := 1 + 1
    theorem t : two = 2

    Only the `sorry` that is the whole of an `abbrev` or `def` is filled, from the line
    comment on its line or the next; any other one stays.
    """
    kept: list[str] = []
    end = 0
    for opened, comment in _open_answers(source):
        answer = comment.text.removeprefix("--").strip()
        kept.append(source[end : opened.start] + answer)
        end = comment.end
    return "".join(kept) + source[end:]


def _open_answers(source: str) -> Iterator[tuple[Token, Token]]:
    """Each `sorry` that stands for an answer, with the comment that gives it."""
    comments = {
        token.start: token
        for token in tokens(source)
        if token.kind == "comment" and token.text.startswith("--")
    }
    parsed = list(code(source))
    for index, token in enumerate(parsed):
        if token.text != "sorry" or not _defines(parsed[:index]):
            continue
        following = source[token.end :]
        gap = len(following) - len(following.lstrip())
        comment = comments.get(token.end + gap)
        if (
            comment is not None
            and following[:gap].count("\n") <= 1
            and comment.text.strip("- \t\r")
        ):
            yield token, comment


def _defines(before: Sequence[Token]) -> bool:
    """Whether `:=` of a definition ends these tokens."""
    if not before or before[-1].text != ":=":
        return False
    for token in reversed(before[:-1]):
        if token.text in _DEFINITIONS:
            return True
        if token.text in (":=", "theorem", "lemma", "example", "instance"):
            return False
    return False
