"""The proofs of a theorem that are known while feedback on a group is written."""

from collections.abc import Sequence

from fdjax.feedback.writer import Attempt

__all__ = ["known_proofs", "peer_proofs"]


def peer_proofs(group: Sequence[Attempt]) -> tuple[str, ...]:
    """The distinct proofs among the attempts of a group, the shortest first."""
    passed = {attempt.proof for attempt in group if attempt.judgement.passed}
    return tuple(sorted(passed, key=lambda proof: (len(proof), proof)))


def known_proofs(group: Sequence[Attempt]) -> tuple[str, ...]:
    """The problem's references, then the proofs among the attempts, each once."""
    references = group[0].problem.references if group else ()
    return tuple(dict.fromkeys((*references, *peer_proofs(group))))
