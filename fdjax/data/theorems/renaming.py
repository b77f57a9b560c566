"""The same theorem in other words: variables exchanged, hypotheses reordered."""

import random
import re
from collections.abc import Sequence

from fdjax.records import Problem

__all__ = ["reword"]

_GROUP = re.compile(r"\((\w+(?: \w+)+) : [^()]*\)")
_HYPOTHESIS = re.compile(r" \((h\d+) : ")
# A whole word that does not follow a dot: in `l.reverse` it is l, in `List.map` List.
_WORD = re.compile(r"(?<![\w.'!?])\w+")


def reword(
    problem: Problem, texts: Sequence[str], rng: random.Random
) -> tuple[str, list[str]]:
    """Statement and texts after a random renaming that keeps the theorem.

    In `theorem t (p q : Prop) (h1 : p) (h2 : q) : p ∨ q` the names p and q may change
    places after their binder, and the hypotheses may stand in another order, numbered
    from h1 again. A proof renamed along proves the result.

    Args:
      problem: whose statement to rewrite.
      texts: proofs or feedback that speak of the statement's names.
      rng: source of randomness.
    """
    names: dict[str, str] = {}
    end = 0
    for group in _GROUP.finditer(problem.statement):
        members = group[1].split()
        names |= dict(zip(members, rng.sample(members, len(members)), strict=True))
        end = group.end()
    head, rest = problem.statement[:end], problem.statement[end:]
    hypotheses, goal = _hypotheses(rest)
    order = rng.sample(range(len(hypotheses)), len(hypotheses))
    labels = [label for label, _ in hypotheses]
    names |= {labels[old]: labels[new] for new, old in enumerate(order)}

    def renamed(text: str) -> str:
        return _WORD.sub(lambda word: names.get(word[0], word[0]), text)

    body = "".join(
        f" ({label} : {renamed(hypotheses[old][1])})"
        for label, old in zip(labels, order, strict=True)
    )
    return head + body + renamed(goal), [renamed(text) for text in texts]


def _hypotheses(text: str) -> tuple[list[tuple[str, str]], str]:
    """Name and proposition of each leading ` (h1 : …)`, and what follows them."""
    found: list[tuple[str, str]] = []
    while match := _HYPOTHESIS.match(text):
        depth, position = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[position], 0)
            position += 1
        found.append((match[1], text[match.end() : position - 1]))
        text = text[position:]
    return found, text
