"""Problems of the miniature: theorems with several short proofs each."""

import math
import random
import re
from collections import Counter
from collections.abc import Mapping
from typing import Literal, Protocol

from fdjax.data.theorems.arithmetic import ArithmeticFamily
from fdjax.data.theorems.canonical import canonical_key
from fdjax.data.theorems.lists import ListFamily
from fdjax.data.theorems.propositional import PropositionalFamily
from fdjax.data.theorems.search import Candidate, ProofSearch
from fdjax.errors import ConfigError
from fdjax.ranges import Number, Whole, require
from fdjax.records import Problem

__all__ = [
    "REFERENCES",
    "TACTICS",
    "TACTIC_COUNT",
    "FamilyName",
    "generate_problems",
    "word_count",
]

FamilyName = Literal["propositional", "arithmetic", "lists"]

_SHARES: Mapping[FamilyName, float] = {
    "propositional": 0.5,
    "arithmetic": 0.25,
    "lists": 0.25,
}
TACTIC_COUNT = Whole(2, 9)
"""Tactics that a problem's shortest proof may need."""
REFERENCES = Whole(2)
"""Proofs that may be wanted for each problem."""
TACTICS = (
    "apply",
    "constructor",
    "exact",
    "exfalso",
    "exists",
    "have",
    "induction",
    "intro",
    "left",
    "obtain",
    "rcases",
    "rfl",
    "right",
    "rw",
)
"""All tactics that the proofs begin a line with."""
_BUDGET = 300
"""States that the search for the shortest proof may visit."""
_MAX_SHARE = 0.235
"""Largest share of a family that one difficulty may have."""
_MAX_STATEMENT_WORDS = 44
_MAX_PROOF_WORDS = 40
_PATIENCE = 400
"""Provable candidates refused in a row before the largest share is raised."""
_WORD = re.compile(r"\n|[\w.']+|:=|[^\w\s]")


class _Family(Protocol):
    def draw(self, rng: random.Random) -> Candidate | None: ...


def word_count(text: str) -> int:
    """Words, symbols and line ends, which the tokenizer never joins."""
    return len(_WORD.findall(text))


def generate_problems(
    count: int,
    *,
    seed: int,
    families: Mapping[FamilyName, float] = _SHARES,
    shortest: int = 2,
    longest: int = 9,
    references: int = 4,
) -> list[Problem]:
    """Distinct theorems, each with at least two proofs, none longer than needed + 2.

    Two problems never have the same `canonical_key`. The result depends on the
    arguments alone, whatever the Python version or hash seed.

    Args:
      count: problems altogether.
      seed: decides everything that is random.
      families: share of each family; shares are scaled to add up to one.
      shortest: least number of tactics in a problem's shortest proof; at least 2.
      longest: greatest such number.
      references: proofs wanted for each problem; at least 2.

    Returns:
      Problems named `t`, families mixed, in random order.

    Raises:
      ConfigError: an argument is out of range.
    """
    _validate(count, families, shortest, longest, references)
    total = sum(families.values())
    problems: list[Problem] = []
    done = 0.0
    for name, share in families.items():
        done += share
        wanted = round(count * done / total) - len(problems)
        problems += _draw_family(
            name,
            wanted,
            random.Random(f"{seed} {name}"),
            shortest=shortest,
            longest=longest,
            references=references,
        )
    random.Random(f"{seed} order").shuffle(problems)
    return problems


def _validate(
    count: int,
    families: Mapping[FamilyName, float],
    shortest: int,
    longest: int,
    references: int,
) -> None:
    require("count", count, Whole(0))
    require("longest", longest, TACTIC_COUNT)
    require("shortest", shortest, Whole(TACTIC_COUNT.least, longest))
    require("references", references, REFERENCES)
    known = _SHARES.keys()
    for name, share in families.items():
        require(f"the share of {name}", share, Number(least=0))
    if not families.keys() <= known or sum(families.values()) <= 0:
        raise ConfigError(
            f"Expected positive shares of {', '.join(known)}, got {dict(families)}; "
            "name at least one of these families with a positive share."
        )


def _make_family(name: FamilyName) -> _Family:
    if name == "propositional":
        return PropositionalFamily()
    return ArithmeticFamily() if name == "arithmetic" else ListFamily()


def _draw_family(
    name: FamilyName,
    count: int,
    rng: random.Random,
    *,
    shortest: int,
    longest: int,
    references: int,
) -> list[Problem]:
    """Problems of one family, no difficulty much more frequent than the others."""
    if count == 0:
        return []
    family = _make_family(name)
    seen: set[str] = set()
    taken: Counter[int] = Counter()
    share = max(_MAX_SHARE, 1 / (longest - shortest + 1))
    refused = 0
    problems: list[Problem] = []
    while len(problems) < count:
        candidate = family.draw(rng)
        if candidate is None:
            continue
        if word_count(candidate.statement) > _MAX_STATEMENT_WORDS:
            continue
        key = canonical_key(Problem(name="t", statement=candidate.statement))
        if key in seen:
            continue
        seen.add(key)
        search = ProofSearch(candidate, rng, _BUDGET)
        size = search.shortest(longest)
        if size is None or size < shortest:
            continue
        if taken[size] >= math.ceil(share * count):
            refused += 1
            if refused > _PATIENCE:
                share, refused = share * 1.2, 0
            continue
        proofs = _proofs(search, size, references)
        if len(proofs) < 2:
            continue
        refused = 0
        taken[size] += 1
        problems.append(
            Problem(
                name="t",
                statement=candidate.statement,
                references=tuple(
                    "\n".join(f"  {line}" for line in proof) for proof in proofs
                ),
                family=name,
                difficulty=size,
            )
        )
    return problems


def _proofs(search: ProofSearch, size: int, count: int) -> list[tuple[str, ...]]:
    """Different proofs, the first of `size` tactics, the others up to two longer."""
    search.extend(_BUDGET)
    found: list[tuple[str, ...]] = []
    for extra in (0, 0, 0, 1, 0, 1, 1, 2, 1, 2, 2, 2):
        if len(found) == count:
            break
        if extra and not found:
            break
        proof = search.proof(size + extra)
        if (
            proof is not None
            and proof not in found
            and word_count("\n".join(proof)) <= _MAX_PROOF_WORDS
            and not _wasteful(proof)
        ):
            found.append(proof)
    return found


def _wasteful(proof: tuple[str, ...]) -> bool:
    """Whether a fact is derived or taken apart and never used."""
    for index, line in enumerate(proof):
        if line.startswith(("have", "obtain")):
            names = re.findall(r"h\d+", line.partition(":=")[0])
            later = set(re.findall(r"h\d+", "\n".join(proof[index + 1 :])))
            # A witness that was obtained is used as y, its property as hypothesis.
            if later.isdisjoint(names) and "exists" not in "".join(proof[index + 1 :]):
                return True
    return False
