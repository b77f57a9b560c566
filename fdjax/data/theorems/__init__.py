"""Theorems made to measure, with reference proofs, for experiments without downloads.

Propositional logic, order arithmetic and lists; see `generate_problems`.
"""

from fdjax.data.theorems.canonical import canonical_key
from fdjax.data.theorems.generate import (
    REFERENCES,
    TACTIC_COUNT,
    TACTICS,
    FamilyName,
    generate_problems,
    word_count,
)
from fdjax.data.theorems.renaming import reword
from fdjax.data.theorems.split import split_problems

__all__ = [
    "REFERENCES",
    "TACTICS",
    "TACTIC_COUNT",
    "FamilyName",
    "canonical_key",
    "generate_problems",
    "reword",
    "split_problems",
    "word_count",
]
