"""What list theorems are about, and the lemmas by which they are rewritten."""

import itertools
import random
from collections.abc import Callable

from fdjax.data.theorems.expression import Expression, Language

__all__ = ["ELEMENTS", "FUNCTIONS", "LISTS", "OBTAINED", "list_language", "list_lemmas"]

LISTS, ELEMENTS, FUNCTIONS = "lmk", "ab", "fg"
OBTAINED = "y"
"""What `induction` calls the first element; the bound variable is always x."""
_VALUATIONS = 500


def list_language() -> Language:
    """Lists of at most two of two elements, in a fixed random sample of valuations."""
    rng = random.Random(0)
    lists = [values for n in range(3) for values in itertools.product((0, 1), repeat=n)]
    functions = list(itertools.product((0, 1), repeat=2))
    choices = {
        **dict.fromkeys(LISTS, lists),
        **dict.fromkeys(ELEMENTS + OBTAINED, (0, 1)),
        **dict.fromkeys(FUNCTIONS, functions),
        "[]": [()],
    }
    return Language(
        {
            name: [rng.choice(values) for _ in range(_VALUATIONS)]
            for name, values in choices.items()
        },
        {
            "=": lambda left, right: left == right,
            "∈": lambda element, items: element in items,
            "+": int.__add__,
            "++": tuple.__add__,
            "::": lambda element, items: (element, *items),
            "length": len,
            "reverse": lambda items: items[::-1],
            "map": lambda items, function: tuple(function[item] for item in items),
            "call": lambda function, element: function[element],
        },
        domain=(0, 1),
    )


def list_lemmas(
    make: Language,
) -> dict[str, Callable[[Expression], Expression | None]]:
    """Each lemma's effect where its left side matches, None elsewhere."""

    def over(
        outer: str, inner: str, rewrite: Callable[..., Expression]
    ) -> Callable[[Expression], Expression | None]:
        def lemma(term: Expression) -> Expression | None:
            if (
                term.head == outer
                and term.parts[-1 if outer == "∈" else 0].head == inner
            ):
                return rewrite(*term.parts)
            return None

        return lemma

    def swap(term: Expression) -> Expression | None:
        return make("+", *term.parts[::-1]) if term.head == "+" else None

    def distribute(outer: str, joined: str) -> Callable[..., Expression]:
        return lambda term, *more: make(
            joined, *(make(outer, part, *more) for part in term.parts)
        )

    return {
        "List.append_assoc": over(
            "++",
            "++",
            lambda term, last: make(
                "++", term.parts[0], make("++", term.parts[1], last)
            ),
        ),
        "List.length_append": over("length", "++", distribute("length", "+")),
        "List.length_reverse": over(
            "length", "reverse", lambda term: make("length", term.parts[0])
        ),
        "List.length_map": over(
            "length", "map", lambda term: make("length", term.parts[0])
        ),
        "List.map_append": over("map", "++", distribute("map", "++")),
        "List.map_reverse": over(
            "map",
            "reverse",
            lambda term, function: make(
                "reverse", make("map", term.parts[0], function)
            ),
        ),
        "List.map_cons": over(
            "map",
            "::",
            lambda term, function: make(
                "::",
                make("call", function, term.parts[0]),
                make("map", term.parts[1], function),
            ),
        ),
        "List.reverse_append": over(
            "reverse",
            "++",
            lambda term: make(
                "++", *(make("reverse", part) for part in reversed(term.parts))
            ),
        ),
        "List.reverse_reverse": over("reverse", "reverse", lambda term: term.parts[0]),
        "List.mem_append": over(
            "∈",
            "++",
            lambda element, term: make(
                "∨", *(make("∈", element, part) for part in term.parts)
            ),
        ),
        "List.mem_reverse": over(
            "∈", "reverse", lambda element, term: make("∈", element, term.parts[0])
        ),
        "Nat.add_comm": swap,
    }
