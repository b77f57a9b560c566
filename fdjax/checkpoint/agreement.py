"""What one process has met, known to all of them."""

from collections.abc import Iterator
from contextlib import contextmanager

from fdjax.errors import DamagedCheckpointError
from fdjax.sharding import gather

__all__ = ["anywhere", "damage_is_shared"]


def anywhere(met: bool) -> bool:
    """Whether any process met it; all of them ask."""
    return b"1" in gather(b"1" if met else b"0")


@contextmanager
def damage_is_shared() -> Iterator[None]:
    """A block that every process leaves alike, whichever of them met damage in it.

    Each reads its own parts of an array, so damage may show to one alone. The others
    would go on, and wait for it for ever.

    Raises:
      DamagedCheckpointError: a process met one.
    """
    own: DamagedCheckpointError | None = None
    try:
        yield
    except DamagedCheckpointError as error:
        own = error
    if anywhere(own is not None) and own is None:
        own = DamagedCheckpointError(
            "Expected what was written, got damage in the parts of another process, "
            "whose own message says more."
        )
    if own is not None:
        raise own
