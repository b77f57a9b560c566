"""What a server allows its clients."""

from dataclasses import dataclass, field

from fdjax.errors import ConfigError

__all__ = ["ServeConfig"]


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Who may ask a server, and for how much.

    Time, memory and output of one proof are the verifier's `Limits`; a request may
    ask for less time.
    """

    token: str | None = field(default=None, repr=False)
    """Bearer token that every request must carry; None lets everybody in."""
    max_body_bytes: int = 16 << 20
    """Largest request body, in bytes; more is answered with 413."""
    max_items: int = 1024
    """Most snippets or proofs in one request; more is answered with 422."""
    max_pending: int = 4096
    """Most items that are admitted and unfinished, over all requests; a request that
    would exceed it is answered with 429."""
    retry_after_s: int = 2
    """What a 429 asks the client to wait, in seconds."""
    unhealthy_after_s: float = 60.0
    """How long Lean may be unable to start before `/health` says so, in seconds;
    `/ready` says so at once."""
    trust_headers: bool = False
    """Whether headers and statements may hold any Lean code. They are elaborated in
    processes that all clients share, so by default they are scanned like a file."""

    def __post_init__(self) -> None:
        if self.token is not None and not self.token.strip():
            raise ConfigError(
                "ServeConfig: expected a token or None, got blank text; None lets "
                "everybody in."
            )
        if self.max_body_bytes < 1024 or self.max_items < 1:
            raise ConfigError(
                "ServeConfig: expected max_body_bytes >= 1024 and max_items >= 1, got "
                f"{self.max_body_bytes} and {self.max_items}; raise them."
            )
        if self.max_pending < self.max_items:
            raise ConfigError(
                f"ServeConfig: expected max_pending >= max_items = {self.max_items}, "
                f"got {self.max_pending}; a full request would never be admitted."
            )
        if self.retry_after_s < 1 or self.unhealthy_after_s < 0:
            raise ConfigError(
                "ServeConfig: expected retry_after_s >= 1 and unhealthy_after_s >= 0, "
                f"got {self.retry_after_s} and {self.unhealthy_after_s}; raise them."
            )
