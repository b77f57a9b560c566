"""The same theorem with its variables' names exchanged: more rows from one proof."""

import random
import re
from collections.abc import Sequence

from fdjax.records import Problem

__all__ = ["exchange_variables"]

_GROUP = re.compile(r"\((\w+(?: \w+)+) : [^()]*\)")
_WORD = re.compile(r"[\w.'!?]+")


def exchange_variables(
    problem: Problem, texts: Sequence[str], rng: random.Random
) -> tuple[str, list[str]]:
    """Statement and texts after a random exchange of names within each binder group.

    In `theorem t (p q : Prop) (h1 : p) : p ∨ q` the names p and q may change places
    everywhere after their binder. The result is the same theorem up to the order of
    its variables, so a proof renamed with it proves it.

    Args:
      problem: whose statement to rewrite; only groups of several names are exchanged.
      texts: proofs or feedback that speak of the statement's names.
      rng: source of randomness.
    """
    mapping: dict[str, str] = {}
    end = 0
    for group in _GROUP.finditer(problem.statement):
        names = group[1].split()
        mapping |= dict(zip(names, rng.sample(names, len(names)), strict=True))
        end = group.end()

    def exchange(text: str) -> str:
        return _WORD.sub(lambda word: mapping.get(word[0], word[0]), text)

    statement = problem.statement
    return statement[:end] + exchange(statement[end:]), [exchange(t) for t in texts]
