"""Which problems state the same theorem, in one set and in those to evaluate on.

Statements are compared as Lean's tokens, without Lean: blanks, comments, the theorem's
name and the names of its binders do not count. Near duplicates are another matter:
statements that differ in anything else, be it `a > b` for `b < a` or the order of
hypotheses, are different here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fdjax.data.rows.words import words
from fdjax.records import Problem

__all__ = ["Deduplicated", "Duplicate", "deduplicate", "statement_key"]

_NOTHING: Mapping[str, Sequence[Problem]] = MappingProxyType({})
_KEYWORDS = ("theorem", "lemma")
_OPENING = frozenset("([{⦃")
_CLOSING = frozenset(")]}⦄")
_BINDS = frozenset(("let", "have"))
_SCOPE = frozenset(
    ("end", "import", "namespace", "open", "section", "set_option", "universe")
)
"""Commands that say how to read a statement; two files seldom have all the same."""
_ADDS = frozenset(("include", "omit", "variable"))
"""What may add to a statement or take from it when it stands before `in`."""


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """A problem that was removed."""

    problem: Problem
    """The one removed."""
    same_as: Problem
    """The one that states the same theorem."""
    found_in: str = ""
    """The evaluation set that holds it; empty: it came earlier in the set itself."""


@dataclass(frozen=True, kw_only=True)
class Deduplicated:
    """A set without duplicates."""

    problems: tuple[Problem, ...]
    """What is left, in the same order."""
    removed: tuple[Duplicate, ...]
    """The rest, in the same order."""


def deduplicate(
    problems: Iterable[Problem],
    evaluation: Mapping[str, Iterable[Problem]] = _NOTHING,
) -> Deduplicated:
    """Removes what an evaluation set holds, and all but the first of each theorem.

    Args:
      problems: of the set to train on.
      evaluation: by name, the sets that must hold none of them. The first that does is
        the one reported.
    """
    held: dict[tuple[str, ...], tuple[Problem, str]] = {}
    for name, others in evaluation.items():
        for other in others:
            held.setdefault(statement_key(other), (other, name))
    kept: list[Problem] = []
    removed: list[Duplicate] = []
    for problem in problems:
        key = statement_key(problem)
        if key in held:
            same, name = held[key]
            removed.append(Duplicate(problem=problem, same_as=same, found_in=name))
        else:
            held[key] = problem, ""
            kept.append(problem)
    return Deduplicated(problems=tuple(kept), removed=tuple(removed))


def statement_key(problem: Problem) -> tuple[str, ...]:
    """The words of a statement; problems with equal ones count as one theorem.

    Of the header, definitions and variables count, for a statement may use them;
    imports, opened namespaces, sections and options do not.

    >>> one, other = (
    ...     Problem(name=name, statement=f"theorem {name} {rest}")
    ...     for name, rest in [("s", "(a b : Nat) : a < b"), ("t", "(b c:Nat) : b<c")]
    ... )
    >>> statement_key(one) == statement_key(other)
    True
    """
    found = [word.text for word in words(problem.statement)]
    name = _place_of_name(found, problem.name)
    if name is not None:
        before, found = found[: name - 1], _renamed(found[name + 1 :])
        found = [*(before if _ADDS.intersection(before) else ()), *found]
    return (*_definitions(problem.header), "⊢", *found)


def _place_of_name(statement: Sequence[str], name: str) -> int | None:
    """The index of the theorem's name behind its keyword."""
    for index in range(1, len(statement)):
        if statement[index] == name and statement[index - 1] in _KEYWORDS:
            return index
    return None


def _renamed(statement: list[str]) -> list[str]:
    """A statement behind its name with its binders' names counted in their order."""
    # No name begins with a percent sign.
    names = {name: f"%{index}" for index, name in enumerate(_binders(statement))}
    renamed: list[str] = []
    for index, word in enumerate(statement):
        head, dot, rest = word.partition(".")
        before = statement[index - 1] if index else ""
        # In `f (n := 3)` and `{ n := 3 }` it is the name of an argument or a field.
        is_given = statement[index + 1 : index + 2] == [":="]
        names_argument = is_given and before in ("(", "{", ",")
        if head in names and not names_argument:
            word = names[head] + dot + rest
        renamed.append(word)
    return renamed


def _binders(statement: Sequence[str]) -> list[str]:
    """The names that the binders before a statement's own colon introduce, in order."""
    found: dict[str, None] = {}
    opened = ""
    group: list[str] = []
    has_type = False
    for word in statement:
        if word in _OPENING:
            if not opened:
                group, has_type = [], False
            opened += word
        elif word in _CLOSING:
            # `[Group G]` has no name; `(n)` and `{n}` have no type.
            if opened != "[" or has_type:
                found |= dict.fromkeys(group if len(opened) == 1 else ())
            opened = opened[:-1]
        elif word == ":" and not opened:
            break
        elif len(opened) <= 1 or opened == "{{":
            has_type |= word == ":"
            if _is_name(word) and not (opened and has_type):
                group.append(word)
                found |= {} if opened else {word: None}
    return list(found)


def _is_name(word: str) -> bool:
    return word != "_" and (word[0].isalpha() or word[0] in "_«")


def _definitions(header: str) -> list[str]:
    """The words of a header but those of commands that only set the scope."""
    kept: list[str] = []
    drops = False
    tokens = words(header)
    for index, token in enumerate(tokens):
        if not token.start or header[token.start - 1] == "\n":
            following = tokens[index + 1].text if index + 1 < len(tokens) else ""
            drops = token.text in _SCOPE or following == "section"
        if not drops:
            kept.append(token.text)
        elif token.text == "in":
            drops = False
    return kept
