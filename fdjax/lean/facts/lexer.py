"""Lean's tokens without Lean: for the scan of submissions and for readers of rows.

Lean's grammar grows with every notation, so only its own parser knows all tokens. What
begins and ends comments, strings, characters and names, however, is fixed, and that is
what one must know to tell code from text.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Token", "code", "tokens", "without_comments"]

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_'!?]*")
_ESCAPE = r"""\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[\\"'rnt])"""
_CHARACTER = re.compile(rf"'(?:{_ESCAPE}|[^\\'])'")
_GAP = r"\\\n(?!\s*?\n)"
_STRING = re.compile(rf'"(?:{_ESCAPE}|{_GAP}|[^"\\])*"')
# A piece of s!"…{term}…{term}…": it ends where a term or the string does.
_PIECE = re.compile(rf'["}}](?:{_ESCAPE}|\\\{{|{_GAP}|[^"\\{{])*["{{]')
_INTERPOLATED = ("f!", "m!", "s!")
_RAW_OPENING = re.compile(r'r(#*)"')
_COMMENT_EDGE = re.compile(r"/-|-/")
_QUOTED_NAME = re.compile(r"«[^»]*»")
_PLAIN = re.compile(r"[\s0-9()\[\],:=⟨⟩<>|·]+")
# Subscripts, letter-like symbols and Greek without λ, Π and Σ may be in a name.
_NAME_CHARACTER = re.compile(r"[A-Za-z0-9_'!?₀-ₜᵢ-ᵪℂ-ⅉΑ-ΟΡΤ-Ωα-κμ-ω]")
_FARTHEST = 100
"""How far to look back in a text that may be made to be slow to read."""
_BEFORE_FIELD = re.compile(r"[\w'!?)»]")
# A literal or a comment that follows another character may be part of a longer token:
# `]'` and `//` are tokens, and so may be names that end in `r`. None goes on behind an
# equals sign, nor with a comment behind `=>` or `->`.
_BEFORE_LITERAL = re.compile(r"[\s(\[{⟨,=]")
_JOINS_COMMENT = re.compile(r"[<|/\\+*&^~%-]")
_PART = r"(?:«[^»]*»|[^\W\dλΠΣ][\w'!?]*)"
_CODE = re.compile(rf"\s+|(?P<name>{_PART}(?:\.{_PART})*)|(?P<symbol>:=|=>|\S)")


class Token(NamedTuple):
    """A piece of Lean text."""

    kind: str
    """What it is; see the function that made it."""
    text: str
    """The piece itself."""
    start: int
    """Where it begins, in code points."""

    @property
    def end(self) -> int:
        """The position after it."""
        return self.start + len(self.text)


def tokens(text: str) -> Iterator[Token]:
    """A text in pieces, for a reader that must not miss a keyword.

    Kinds: word (ASCII part of an identifier, or a keyword), field (a word that a dot
    joins to what is before it), name (in «»), string (also the pieces between the terms
    of an interpolated one), literal (a character or a raw string), comment, ambiguous,
    broken (a literal, name or comment without an end), and symbol (also several, with
    blanks and digits). Letters outside ASCII end a word, so that none hides a keyword.
    What follows an ambiguous token is read the way Lean most likely does, and may begin
    within it.
    """
    position = 0
    comment = 0  # where the last one ended
    braces: list[int] = []  # open in each term of the interpolated strings around
    while position < len(text):
        if match := _PLAIN.match(text, position):
            yield Token("symbol", match.group(), position)
            position = match.end()
        elif text.startswith(("--", "/-"), position):
            before = text[position - 1] if position > comment else " "
            # `/--/` opens a comment for documentation, which goes on.
            if _JOINS_COMMENT.match(before) or text.startswith("/--/", position):
                pair = text[position : position + 2]
                yield Token("ambiguous", before.strip() + pair, position)
                if before + pair == "//-":
                    position += 1  # the `//` of a subtype, then a minus sign
                    continue
            end = _comment_end(text, position)
            kind = "broken" if end is None else "comment"
            end = len(text) if end is None else end
            yield Token(kind, text[position:end], position)
            comment = position = end
        else:
            kind, end = _token(text, position, braces)
            yield Token(kind, text[position:end], position)
            # The quote, or the `r`, of such a literal may be the end of a name.
            is_literal = text[position] == "'" or text[end - 1] == '"'
            position = position + 1 if kind == "ambiguous" and is_literal else end


def code(text: str) -> Iterator[Token]:
    """What Lean parses of a text that is valid: no blanks and no comments.

    Kinds: name (a whole identifier with its dots and «», or a keyword), string (of any
    sort, whole), symbol (`:=`, `=>` or one character), comment (those that Lean parses:
    documentation, `/-- … -/` and `/-! … -/`) and broken.
    """
    done = 0  # where the last token ended
    strings: list[int] = []  # where the interpolated ones around begin
    for kind, piece, start in tokens(text):
        end = start + len(piece)
        if kind == "literal" and start < done:
            continue  # quotes of a name that has been read, as in `α'0'`
        if kind == "string" and piece[-1] == "{" and piece[0] != "}":
            strings.append(start)
        elif kind == "string" and piece[0] == "}" and piece[-1] != "{":
            start = strings.pop()
            piece = text[start:end]
        if strings or kind == "ambiguous":
            done = end if strings else done
        elif kind in ("string", "literal", "broken"):
            yield Token("broken" if kind == "broken" else "string", piece, start)
            done = end
        elif kind == "comment":
            if piece.startswith(("/--", "/-!")):
                yield Token(kind, piece, start)
            done = end
        else:
            position = max(start, done)
            while position < end and (match := _CODE.match(text, position)):
                if match.lastgroup:
                    yield Token(match.lastgroup, match.group(), position)
                done = position = match.end()


def without_comments(text: str) -> str:
    """The text with nothing but their line breaks in the place of comments."""
    kept: list[str] = []
    end = 0
    for token in tokens(text):
        is_comment = token.text.startswith(("--", "/-"))
        if is_comment and token.kind in ("comment", "broken"):
            kept.append(text[end : token.start] + "\n" * token.text.count("\n"))
            end = token.end
    return "".join(kept) + text[end:]


def _token(text: str, position: int, braces: list[int]) -> tuple[str, int]:
    """Kind and end of the token at `position`, which is no comment."""
    character = text[position]
    before = text[position - 1] if position else " "
    joined = not _BEFORE_LITERAL.match(before)
    if character == "r" and (match := _RAW_OPENING.match(text, position)):
        if joined:
            return "ambiguous", match.end()
        closing = '"' + match.group(1)
        end = text.find(closing, match.end())
        return ("broken", len(text)) if end < 0 else ("literal", end + len(closing))
    if match := _WORD.match(text, position):
        if "'" in match.group() and _in_number(text, position):
            return "ambiguous", match.end()
        is_field = before == "." and _joins(text, position - 1)
        return "field" if is_field else "word", match.end()
    if character in '"{}':
        return _string_or_brace(text, position, braces)
    if character == "'" and (match := _CHARACTER.match(text, position)):
        if joined and not match.group()[1:-1].isalnum():
            return "ambiguous", match.end()
        return "literal", match.end()
    if character == "«":
        match = _QUOTED_NAME.match(text, position)
        return ("name", match.end()) if match else ("broken", len(text))
    if text.startswith("'\\", position):
        return "broken", position + 1
    return "symbol", position + 1


def _string_or_brace(text: str, position: int, braces: list[int]) -> tuple[str, int]:
    """Kind and end of what begins with a quotation mark or is a brace.

    Args:
      text: the whole.
      position: where it begins.
      braces: how many are open in each term of interpolated strings; kept up to date.
    """
    if text[position] == '"':
        pattern = _PIECE if _is_interpolated(text, position) else _STRING
    elif text[position] == "}" and braces and not braces[-1]:
        braces.pop()
        pattern = _PIECE
    else:
        if braces:
            braces[-1] += 1 if text[position] == "{" else -1
        return "symbol", position + 1
    match = pattern.match(text, position)
    if match is None:
        return "broken", len(text)
    if pattern is _PIECE and text[match.end() - 1] == "{":
        braces.append(0)
    return "string", match.end()


def _is_interpolated(text: str, quote: int) -> bool:
    """Whether a string follows `s!` or its like, which is not the end of a name."""
    before = text[max(quote - 3, 0) : quote]
    ends_name = before[:1] == "." or _NAME_CHARACTER.match(before[:-2])
    return before.endswith(_INTERPOLATED) and not ends_name


def _in_number(text: str, position: int) -> bool:
    """Whether a word is the rest of a token that begins with a digit, as in `0x1`.

    Also where that token's beginning is too far away to look for.
    """
    start = position
    farthest = max(position - _FARTHEST, 0)
    while start > farthest and _NAME_CHARACTER.match(text[start - 1]):
        start -= 1
    return start < position and (text[start] in "0123456789" or 0 < start == farthest)


def _joins(text: str, dot: int) -> bool:
    """Whether the dot at this position continues a name (not a number or `..`)."""
    before = text[dot - 1] if dot else " "
    return bool(_BEFORE_FIELD.match(before)) and not before.isdigit()


def _comment_end(text: str, position: int) -> int | None:
    """The position after a comment of either kind; None where it does not end."""
    if text.startswith("--", position):
        end = text.find("\n", position)
        return len(text) if end < 0 else end
    depth = 0
    while match := _COMMENT_EDGE.search(text, position):
        depth += 1 if match.group() == "/-" else -1
        position = match.end()
        if depth == 0:
            return position
    return None
