"""How different the verified proofs of a theorem are from each other."""

import math
import re
from collections import Counter
from collections.abc import Iterable

from fdjax.lean.facts.lexer import without_comments

__all__ = [
    "distinct_proofs",
    "distinct_sequences",
    "normalize_proof",
    "tactic_entropy",
    "tactic_sequence",
]

_LEADING = re.compile(r"(?:[·{}]\s*|by\s+)*")
_ALTERNATIVE = re.compile(r"^(?:\||case\b|next\b)[^=]*=>")
_SEPARATOR = re.compile(r"<;>|;|·|\bby\b")
_OPENS_BLOCK = re.compile(r"(?:\bby|=>|·|\{|<;>|;)\s*$")
_STARTS_STEP = re.compile(r"[·|{}]|<;>|;")
_HEAD = re.compile(r"[^\W\d][\w.'!?]*")


def normalize_proof(proof: str) -> str:
    """The proof with each run of white space made one space, and none at the ends."""
    return " ".join(proof.split())


def distinct_proofs(proofs: Iterable[str]) -> int:
    """Proofs that differ in more than white space.

    Args:
      proofs: verified proofs of one theorem.
    """
    return len({normalize_proof(proof) for proof in proofs})


def distinct_sequences(proofs: Iterable[str]) -> int:
    """Different tactic sequences: proofs that differ in more than their arguments.

    Args:
      proofs: verified proofs of one theorem.
    """
    return len({tactic_sequence(proof) for proof in proofs})


def tactic_entropy(proofs: Iterable[str]) -> float:
    """Entropy of the tactics of all proofs together.

    H = −Σ_a f_a log f_a, with f_a the share of tactic a among all tactic steps.

    Args:
      proofs: verified proofs, of one theorem or of many.

    Returns:
      The entropy in nats; 0 when there is no tactic.
    """
    counts = Counter(head for proof in proofs for head in tactic_sequence(proof))
    total = counts.total()
    return math.fsum(
        count / total * math.log(total / count) for count in counts.values()
    )


def tactic_sequence(proof: str) -> tuple[str, ...]:
    r"""Head words of the proof's tactic steps, in order of the text.

    A reading by layout, not a parse: a step starts on a line that is not indented
    deeper than the step before it, on a line that begins with a bullet, `|` or brace,
    after a line that opens a block, and after `;`, `<;>`, `by`, a bullet and the `=>`
    of a case within a line. Comments are skipped.

    Args:
      proof: tactic text, with or without the leading `by`.

    >>> tactic_sequence("intro h\nconstructor\n· exact h.1\n· simp [h] <;> omega")
    ('intro', 'constructor', 'exact', 'simp', 'omega')
    """
    heads: list[str] = []
    step_column = -1
    block_open = True
    for line in without_comments(proof).splitlines():
        text = line.strip()
        if not text:
            continue
        column = len(line) - len(line.lstrip())
        continues = (
            not block_open and column > step_column and _STARTS_STEP.match(text) is None
        )
        block_open = _OPENS_BLOCK.search(text) is not None
        if not continues:
            leading = _LEADING.match(text)
            inside = leading.end() if leading else 0
            step_column = column + inside
            text = _ALTERNATIVE.sub("", text[inside:], count=1)
        for piece in _SEPARATOR.split(text)[int(continues) :]:
            head = _HEAD.match(piece.strip(" \t()⟨⟩[]{},"))
            if head is not None:
                heads.append(head.group())
    return tuple(heads)
