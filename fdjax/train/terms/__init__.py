"""Terms: the losses that an algorithm is a weighted sum of, as data."""

from fdjax.train.terms.algorithm import mixture, needs_of
from fdjax.train.terms.fd import FD
from fdjax.train.terms.grpo import CISPO, GRPO, GSPO, Clipped, DualClip, ReferenceKL
from fdjax.train.terms.sft import SFT
from fdjax.train.terms.term import Needs, SequenceTerm, Term, Tokens, TokenTerm

__all__ = [
    "CISPO",
    "FD",
    "GRPO",
    "GSPO",
    "SFT",
    "Clipped",
    "DualClip",
    "Needs",
    "ReferenceKL",
    "SequenceTerm",
    "Term",
    "TokenTerm",
    "Tokens",
    "mixture",
    "needs_of",
]
