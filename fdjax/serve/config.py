"""What a server allows its clients."""

from dataclasses import dataclass, field

from fdjax.errors import ConfigError
from fdjax.ranges import FLAG, Number, Whole, require, require_fields

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
        text = self.token is None or isinstance(self.token, str)
        if not text or (self.token is not None and not self.token.strip()):
            raise ConfigError(
                "expected ServeConfig.token to be text that is not blank, or None: "
                "None lets everybody in"
            )
        require_fields(
            self,
            max_body_bytes=Whole(1024),
            max_items=Whole(1),
            retry_after_s=Whole(1),
            unhealthy_after_s=Number(least=0),
            trust_headers=FLAG,
        )
        require(
            "ServeConfig.max_pending",
            self.max_pending,
            Whole(self.max_items),
            remedy="a request of max_items would never be admitted",
        )
