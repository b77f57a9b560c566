"""Lean text as words to compare, whatever its blanks and comments."""

from fdjax.lean.facts.lexer import Token, code

__all__ = ["words"]


def words(text: str) -> list[Token]:
    """The tokens of valid Lean text without comments; a number's digits are one.

    >>> [word.text for word in words("f 12 h.1 -- easy")]
    ['f', '12', 'h', '.', '1']
    """
    found: list[Token] = []
    for token in code(text):
        if token.kind == "comment":
            continue
        if found and token.start == found[-1].end and _is_number(found[-1], token):
            number = found.pop()
            token = Token(number.kind, number.text + token.text, number.start)
        found.append(token)
    return found


def _is_number(before: Token, token: Token) -> bool:
    """Whether a token that touches the one before goes on with its digits."""
    return before.text[0].isdigit() and (
        token.text[0].isdigit() or token.kind == "name"
    )
