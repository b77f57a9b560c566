"""What `fdjax serve` and its client say to each other, besides requests and reports.

Everything travels as the JSON of `dataclasses.asdict`.
"""

from dataclasses import dataclass

from fdjax.lean.facts.backend import Limits, RawReport

__all__ = ["CHECK_PATH", "IDENTITY_PATH", "CheckAnswer", "ServerIdentity"]

CHECK_PATH = "/v1/check"
IDENTITY_PATH = "/v1/identity"


@dataclass(frozen=True, kw_only=True)
class ServerIdentity:
    """Who verifies."""

    identity: str
    """Of the server's backend: verdicts of equal identity are equal."""
    limits: Limits
    """The most that a request may ask for."""


@dataclass(frozen=True, kw_only=True)
class CheckAnswer:
    """The answer to one `CheckRequest` or `RunRequest`."""

    identity: str
    """Of the backend that answered; replicas may differ."""
    report: RawReport | None = None
    """What was observed; None when the checker died."""
    died: str = ""
    """How the checker died, twice; empty when there is a report."""
