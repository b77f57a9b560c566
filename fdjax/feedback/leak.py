"""How much of a known proof a text gives away, counted in Lean's tokens."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fdjax.lean.facts.lexer import code, without_comments
from fdjax.ranges import Whole, require_fields

__all__ = ["Leak", "LeakMeasure"]

# In prose these stand for other things than in Lean, where each hides what follows it.
_HIDES = re.compile(r"--|/-|-/|[\"«»`]")


@dataclass(frozen=True, kw_only=True)
class Leak:
    """What a text shares with the known proof that it gives away most of."""

    share: float = 0.0
    """Share of the proof's tokens that the text holds in runs, from 0 to 1."""
    new_share: float = 0.0
    """The same without what the attempt itself holds in runs: what the author of the
    attempt learns from the text."""
    longest_run: int = 0
    """Tokens of the longest run that the text and the proof share."""


@dataclass(frozen=True, kw_only=True)
class LeakMeasure:
    """Counts the runs of tokens that a text shares with proofs.

    A token is a name with its dots, a symbol or a digit; comments of the proofs, blanks
    and line breaks do not count. Of the proofs the one with the largest `new_share` is
    reported.
    """

    shortest_run: int = 4
    """Tokens that make a run; fewer occur by chance. A proof that has fewer is a run as
    a whole: whoever tells it tells everything."""

    def __post_init__(self) -> None:
        require_fields(self, shortest_run=Whole(1))

    def __call__(self, text: str, *, proofs: Iterable[str], attempt: str = "") -> Leak:
        """The leak of a text.

        Args:
          text: feedback, in prose and Lean.
          proofs: known proofs, as tactics or whole files.
          attempt: what the reader of the text has written.
        """
        written, own = _tokens(text), _proof_tokens(attempt)
        return max(
            (self._of_proof(written, own, proof) for proof in proofs),
            key=lambda leak: (leak.new_share, leak.share, leak.longest_run),
            default=Leak(),
        )

    def lines(
        self, text: str, *, proofs: Iterable[str], attempt: str = ""
    ) -> frozenset[int]:
        """The lines of a text, from 0, that hold tokens of a proof new to the attempt.

        Arguments are those of a call.
        """
        rows = [_tokens(line) for line in text.split("\n")]
        written = [token for row in rows for token in row]
        line_of = [number for number, row in enumerate(rows) for _ in row]
        own = _proof_tokens(attempt)
        found: set[int] = set()
        for proof in proofs:
            tokens = _proof_tokens(proof)
            size = min(self.shortest_run, max(len(tokens), 1))
            known = _covered(tokens, own, size)
            new = {
                run
                for start, run in enumerate(_runs(tokens, size))
                if not all(known[start : start + size])
            }
            for start, run in enumerate(_runs(written, size)):
                if run in new:
                    found.update(line_of[start : start + size])
        return frozenset(found)

    def _of_proof(self, written: Sequence[str], own: Sequence[str], proof: str) -> Leak:
        tokens = _proof_tokens(proof)
        if not tokens:
            return Leak()
        size = min(self.shortest_run, len(tokens))
        told = _covered(tokens, written, size)
        if not any(told):
            return Leak(longest_run=_longest_run(tokens, written, most=size - 1))
        known = _covered(tokens, own, size)
        new = sum(one and not other for one, other in zip(told, known, strict=True))
        return Leak(
            share=sum(told) / len(tokens),
            new_share=new / len(tokens),
            longest_run=_longest_run(tokens, written, least=size),
        )


@lru_cache(maxsize=1024)  # a proof is compared with the feedback on all its group
def _tokens(text: str) -> tuple[str, ...]:
    """The tokens of prose with Lean in it."""
    return tuple(token.text for token in code(_HIDES.sub(" ", text)))


@lru_cache(maxsize=1024)
def _proof_tokens(text: str) -> tuple[str, ...]:
    """The tokens of Lean, without its comments."""
    return _tokens(without_comments(text))


def _runs(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """The runs of this size, by where they start."""
    return [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]


def _covered(tokens: Sequence[str], others: Sequence[str], size: int) -> list[bool]:
    """Which tokens lie in a run of at least this size that both have."""
    covered = [False] * len(tokens)
    shared = set(_runs(others, size))
    for start, run in enumerate(_runs(tokens, size)):
        if run in shared:
            covered[start : start + size] = [True] * size
    return covered


def _longest_run(
    tokens: Sequence[str],
    others: Sequence[str],
    *,
    least: int = 0,
    most: int | None = None,
) -> int:
    """The size of the longest run that both have, known to be from `least` to `most`.

    Whoever shares a run shares the shorter ones inside it, so the size can be bisected.
    """
    shorter = min(len(tokens), len(others))
    most = shorter if most is None else min(most, shorter)
    while least < most:
        size = (least + most + 1) // 2
        if set(_runs(tokens, size)).isdisjoint(_runs(others, size)):
            most = size - 1
        else:
            least = size
    return least
