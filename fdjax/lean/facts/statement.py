"""Where a theorem's statement begins and ends in its text, read without Lean.

Lean's own parser decides in the end: what is misread here does not elaborate there, or
not as another theorem. Not understood is a `by` outside brackets in a theorem's type
that uses `:=` other than after `let` and `have`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from fdjax.jsonl import Row, shorten
from fdjax.lean.facts.lexer import Token, code

__all__ = ["Theorem", "last_theorem", "statement_of"]

_MODIFIERS = frozenset(
    ("meta", "noncomputable", "nonrec", "partial", "private", "protected", "public")
)
_BEFORE_IN = frozenset(
    ("attribute", "include", "omit", "open", "set_option", "universe", "variable")
)
_OPENING = frozenset("([{⟨⦃")
_CLOSING = frozenset(")]}⟩⦄")
_BINDS = frozenset(("have", "haveI", "let", "letI", "let_delayed", "let_fun"))
"""Each has a `:=` of its own, or `←` or alternatives with `=>` in its place."""
_FUNCTIONS = frozenset(("fun", "match", "nomatch", "λ"))
"""What else has alternatives."""
_PLACEHOLDERS = frozenset(
    ("(", ")", "{", "}", ";", "·", "by", "exact", "sorry", "admit")
)
"""A proof of these alone leaves all to be done."""


@dataclass(frozen=True, kw_only=True)
class Theorem:
    """The last theorem of a text, and what stands around it."""

    name: str
    """As the text spells it, «» included; empty where a name is missing."""
    header: str
    """Up to the last thing before the theorem that is no comment; may be empty."""
    statement: str
    """The theorem up to its proof, with what belongs to it: comments, documentation,
    attributes, modifiers, `open … in` and its like."""
    proof: str
    """The rest, from `:=`, `where` or the first alternative on; empty without any."""
    is_open: bool
    """Whether the proof is missing or but a placeholder: `:= by sorry` or a part, and
    nothing follows it but the `end` of sections and namespaces."""


@lru_cache(maxsize=256)  # files hold many proofs of a statement in a row
def last_theorem(text: str) -> Theorem | None:
    """The last `theorem` or `lemma` of a text; None where there is none."""
    tokens = list(code(text))
    keyword = _last_keyword(text, tokens)
    if keyword is None:
        return None
    begin, proof = _begin(tokens, keyword), _proof(tokens, keyword + 1)
    named = tokens[keyword + 1 : keyword + 2]
    header_end = tokens[begin - 1].end if begin else 0
    proof_start = tokens[proof].start if proof < len(tokens) else len(text)
    rest = [token.text for token in tokens[proof : _before_ends(tokens)]]
    return Theorem(
        name=named[0].text if named and named[0].kind == "name" else "",
        header=text[:header_end],
        statement=text[header_end:proof_start].strip(),
        proof=text[proof_start:],
        is_open=not rest or (rest[0] == ":=" and _PLACEHOLDERS.issuperset(rest[1:])),
    )


def statement_of(row: Row) -> str:
    """The string under `statement`: one theorem, which ends before `:=`.

    A statement that declares no theorem passes: Lean says what it is.

    Raises:
      DataError: it is missing or blank, goes on after the theorem's type, or something
        else, such as an `import`, stands before the theorem.
    """
    statement = row.text("statement", required=True)
    theorem = last_theorem(statement)
    if theorem and theorem.header.strip():
        raise row.error(
            "a `statement` of one theorem",
            f"{shorten(theorem.header.strip())} before it",
            "move that to `header`, or leave it out",
        )
    if theorem and theorem.proof:
        raise row.error(
            "a `statement` that ends before `:=`",
            f"{shorten(theorem.proof.strip())} behind it",
            "cut it there; the proof is added after `:= by`",
        )
    return statement


def _last_keyword(text: str, tokens: Sequence[Token]) -> int | None:
    """The index of the last `theorem` or `lemma` outside brackets."""
    depth, found = 0, None
    for index, token in enumerate(tokens):
        if token.text in _OPENING:
            depth += 1
        elif token.text in _CLOSING:
            depth = max(depth - 1, 0)
        elif depth == 0 and (
            token.text == "theorem"
            or (token.text == "lemma" and _may_begin(text, tokens, index))
        ):
            found = index
    return found


def _may_begin(text: str, tokens: Sequence[Token], index: int) -> bool:
    """Whether a word may be a command: `lemma` is a name like any without Mathlib."""
    if not index:
        return True
    last = tokens[index - 1]
    ends = last.kind == "comment" or last.text in _MODIFIERS | {"in", "]"}
    return ends or "\n" in text[last.end : tokens[index].start]


def _begin(tokens: Sequence[Token], keyword: int) -> int:
    """The index of the first token that belongs to the command of a keyword."""
    begin = keyword
    while begin:
        last = tokens[begin - 1]
        if last.text in _MODIFIERS or last.text.startswith("/--"):
            begin -= 1
        elif last.text == "]" and (opening := _attributes(tokens, begin)) is not None:
            begin = opening
        elif last.text == "in" and (command := _before_in(tokens, begin)) is not None:
            begin = command
        else:
            break
    return begin


def _attributes(tokens: Sequence[Token], end: int) -> int | None:
    """The index of the `@` whose brackets close right before `end`."""
    depth = 0
    for index in range(end - 1, 0, -1):
        if tokens[index].text in _CLOSING:
            depth += 1
        elif tokens[index].text in _OPENING:
            depth -= 1
        if depth == 0:
            return index - 1 if tokens[index - 1].text == "@" else None
    return None


def _before_in(tokens: Sequence[Token], end: int) -> int | None:
    """The index of the command whose `in` stands right before `end`."""
    for index in range(end - 1, -1, -1):
        if tokens[index].text in _BEFORE_IN:
            return index
    return None


def _before_ends(tokens: Sequence[Token]) -> int:
    """How many tokens stand before every `end` at the text's end."""
    count = len(tokens)
    while True:
        last = [token.text for token in tokens[max(count - 2, 0) : count]]
        if last[-1:] == ["end"]:
            count -= 1
        elif last[:1] == ["end"]:
            count -= 2
        else:
            return count


def _proof(tokens: Sequence[Token], begin: int) -> int:
    """The index of the token with which the proof begins, or the number of tokens."""
    depth = 0
    owed = 0  # `:=` that belong to a `let` or `have` of the type
    has_functions = False
    alternative = None  # the first bar, which may belong to an absolute value
    for index in range(begin, len(tokens)):
        word = tokens[index].text
        if word in _OPENING:
            depth += 1
        elif word in _CLOSING:
            depth -= 1
        elif depth > 0:
            continue
        elif word == "where" or (word == ":=" and not owed):
            return index
        elif word in _BINDS:
            owed += 1
        elif owed and word in (":=", "=>", "←"):
            owed -= 1
            has_functions |= word == "=>"
        elif word in _FUNCTIONS:
            has_functions = True
        elif word == "|" and alternative is None:
            alternative = index
        elif word == "=>" and alternative is not None and not has_functions:
            return alternative
    return len(tokens)
