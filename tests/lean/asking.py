"""Requests as the verifier makes them, to a backend without the scan in front of it."""

from fdjax.lean import CheckRequest, Limits
from fdjax.lean.facts.judge import judge


def request(target, proof, **limits):
    """A check of a submission, or of the statement alone where that is None."""
    return CheckRequest(
        name=target.name,
        header=target.header,
        statement=target.statement,
        proof=proof,
        limits=Limits(**limits),
    )


def status(backend, target, proof):
    """The verdict's status."""
    asked = request(target, proof)
    return judge(backend.check(asked), asked).status
