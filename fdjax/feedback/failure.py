"""Why there is no feedback, by kind: a failure is data, and each kind is counted."""

from enum import StrEnum

__all__ = ["Kind"]


class Kind(StrEnum):
    """What went wrong."""

    RATE_LIMIT = "rate_limit"
    """The server had no room (429) for as long as it was asked."""
    SERVER = "server"
    """The server failed (5xx, 408, 409, 425)."""
    TIMEOUT = "timeout"
    """One request took longer than it may."""
    CONNECTION = "connection"
    """No connection, or one that was dropped, perhaps in the middle of the answer."""
    CONTENT_TYPE = "content_type"
    """The answer is no JSON by its own account: a proxy's page, say."""
    MALFORMED = "malformed"
    """The answer is broken JSON, or JSON of another shape."""
    DENIED = "denied"
    """The key is wrong, or may not or can no longer pay (401, 403, spent quota)."""
    INVALID = "invalid"
    """The server does not accept the request (other 4xx): model, parameters, length."""
    EMPTY = "empty"
    """The model said nothing."""
    REFUSAL = "refusal"
    """The model, or a filter behind it, refused to answer."""
    CUT = "cut"
    """The answer reached its limit of tokens, so its end is missing."""
    UNANSWERED = "unanswered"
    """An answer for a whole group that has none for this attempt."""
    DEADLINE = "deadline"
    """The time for the batch was over."""
    BUDGET = "budget"
    """The tokens or the money were spent; nothing was asked."""
    UNRECORDED = "unrecorded"
    """A replay has no such answer."""
    UNJUDGED = "unjudged"
    """Nothing was decided about the attempt that feedback could be about."""
    LEAK = "leak"
    """The feedback held too much of a known proof."""
    FAILED = "failed"
    """Anything else: the code of a writer raised, or answered what it may not."""

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed when it is sent again."""
        return self in _TRANSIENT


_TRANSIENT = frozenset(
    {
        Kind.RATE_LIMIT,
        Kind.SERVER,
        Kind.TIMEOUT,
        Kind.CONNECTION,
        Kind.CONTENT_TYPE,
        Kind.MALFORMED,
    }
)
