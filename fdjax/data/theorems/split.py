"""Disjoint splits: easier theorems for the warm start, one mix for all the others."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

from fdjax.data.theorems.canonical import canonical_key
from fdjax.errors import ConfigError
from fdjax.ranges import Number, Whole, require
from fdjax.records import Problem

__all__ = ["split_problems"]


def split_problems(
    problems: Sequence[Problem],
    *,
    sizes: Mapping[str, int | float],
    seed: int,
    rest: str = "sft",
    lean: float = 1.0,
) -> dict[str, list[Problem]]:
    """Splits by use; no theorem is in two of them, whatever its names and order.

    What `sizes` leaves over goes to `rest`. A theorem of difficulty d goes there with
    weight d^-lean within its stratum (family and difficulty), so `rest` leans to easy
    theorems. The splits in `sizes` share the other theorems, each with every stratum
    in proportion, up to rounding. Of problems that are one theorem, the first is kept.

    Args:
      problems: what to divide.
      sizes: problems in each split: a number of them (int) or a share (float).
      seed: decides who goes where.
      rest: name of the split that gets what is left.
      lean: 0 gives all splits the same mix; larger makes `rest` easier.

    Returns:
      The splits in the order of `sizes`, then `rest`; each in random order.

    Raises:
      ConfigError: the sizes do not fit the problems.
    """
    for name, size in sizes.items():
        share = isinstance(size, float)
        rule = Number(least=0, most=1) if share else Whole(0)
        require(f"the size of split {name!r}", size, rule)
    require("lean", lean, Number())
    first = {canonical_key(problem): problem for problem in reversed(problems)}
    distinct = list(first.values())[::-1]
    wanted = {
        name: size if isinstance(size, int) else round(size * len(distinct))
        for name, size in sizes.items()
    }
    _validate(wanted, len(distinct), rest)
    rng = random.Random(seed)
    groups: dict[tuple[str, int], list[Problem]] = defaultdict(list)
    for problem in distinct:
        groups[problem.family, problem.difficulty].append(problem)
    strata = [groups[key] for key in sorted(groups)]
    for members in strata:
        rng.shuffle(members)
    left_over = len(distinct) - sum(wanted.values())
    weights = [
        len(members) * max(1, members[0].difficulty) ** -lean for members in strata
    ]
    rest_members = _take(strata, left_over, weights)
    splits = {
        name: _take(strata, size, [float(len(members)) for members in strata])
        for name, size in wanted.items()
    }
    splits[rest] = rest_members
    for members in splits.values():
        rng.shuffle(members)
    return splits


def _validate(wanted: Mapping[str, int], available: int, rest: str) -> None:
    if rest in wanted:
        raise ConfigError(
            f"Expected sizes for splits other than {rest!r}, got {dict(wanted)}; "
            f"{rest!r} gets what the others leave."
        )
    if sum(wanted.values()) > available:
        raise ConfigError(
            f"Expected splits of at most {available} distinct problems together, got "
            f"{dict(wanted)}; generate more problems or lower the sizes."
        )


def _take(
    strata: list[list[Problem]], size: int, weights: Sequence[float]
) -> list[Problem]:
    """Removes `size` problems, from each stratum by weight (Sainte-Laguë)."""
    counts = [0] * len(strata)
    for _ in range(size):
        open_strata = [
            index
            for index, members in enumerate(strata)
            if counts[index] < len(members)
        ]
        best = max(open_strata, key=lambda i: weights[i] / (2 * counts[i] + 1))
        counts[best] += 1
    taken = []
    for members, count in zip(strata, counts, strict=True):
        taken += members[len(members) - count :]
        del members[len(members) - count :]
    return taken
