"""Disjoint splits with the same mix of families and difficulties."""

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

from fdjax.data.theorems.canonical import canonical_key
from fdjax.errors import ConfigError
from fdjax.records import Problem

__all__ = ["split_problems"]


def split_problems(
    problems: Sequence[Problem],
    *,
    sizes: Mapping[str, int | float],
    seed: int,
    rest: str = "sft",
) -> dict[str, list[Problem]]:
    """Splits by use; no theorem is in two of them, whatever its names and order.

    Every split named in `sizes` has each family and difficulty in the proportions of
    the whole, up to rounding. Of problems that are one theorem, the first is kept.

    Args:
      problems: what to divide.
      sizes: problems in each split: a number of them (int) or a share (float).
      seed: decides who goes where.
      rest: name of the split that gets what is left; it leans to easy problems,
        because splits are rounded up from the hardest problems down.

    Returns:
      The splits in the order of `sizes`, then `rest`; each in random order.

    Raises:
      ConfigError: the sizes do not fit the problems.
    """
    distinct = list({canonical_key(p): p for p in reversed(problems)}.items())[::-1]
    total = len(distinct)
    wanted = {
        name: size if isinstance(size, int) else round(size * total)
        for name, size in sizes.items()
    }
    if rest in wanted or min(wanted.values(), default=0) < 0:
        raise ConfigError(
            f"Expected sizes of at least 0 for splits other than {rest!r}, got "
            f"{dict(sizes)}; {rest!r} gets what the others leave."
        )
    if sum(wanted.values()) > total:
        raise ConfigError(
            f"Expected splits of at most {total} distinct problems together, got "
            f"{wanted}; generate more problems or lower the sizes."
        )
    rng = random.Random(seed)
    strata: dict[tuple[str, int], list[Problem]] = defaultdict(list)
    for _, problem in distinct:
        strata[problem.family, problem.difficulty].append(problem)
    for members in strata.values():
        rng.shuffle(members)
    remaining = [strata[key] for key in sorted(strata, key=lambda k: (-k[1], k[0]))]
    splits = {}
    for name, size in wanted.items():
        splits[name] = _take(remaining, size)
    splits[rest] = [problem for members in remaining for problem in members]
    for members in splits.values():
        rng.shuffle(members)
    return splits


def _take(strata: list[list[Problem]], size: int) -> list[Problem]:
    """Removes `size` problems, from each stratum in proportion to what it has."""
    total = sum(map(len, strata))
    counts = [size * len(members) // total if total else 0 for members in strata]
    missing = size - sum(counts)
    for index, members in enumerate(strata):
        if missing and len(members) > counts[index]:
            counts[index] += 1
            missing -= 1
    assert missing == 0, "one more from each stratum always suffices"
    taken = []
    for members, count in zip(strata, counts, strict=True):
        taken += members[len(members) - count :]
        del members[len(members) - count :]
    return taken
