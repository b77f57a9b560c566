"""Calls of writers, which are anyone's code: what they may do wrong becomes data."""

import asyncio
from collections.abc import Iterable, Sequence
from contextvars import ContextVar

from fdjax.errors import FeedbackError
from fdjax.feedback.failure import Kind
from fdjax.feedback.writer import Attempt, Feedback, Writer

__all__ = ["aclose_all", "is_late", "write_all", "write_in_time", "write_safely"]

_limit: ContextVar[asyncio.Timeout | None] = ContextVar("limit", default=None)
"""Of the call of a writer under way, also for the writers that it calls."""


async def write_in_time(
    writer: Writer, group: Sequence[Attempt], deadline_s: float
) -> list[Feedback]:
    """What a writer says of each attempt in so many seconds (`write_safely`).

    Beyond them it is cancelled, and the whole group has no feedback. A `Watched` counts
    that, wherever among the writers it stands.

    Raises:
      FeedbackError: the run is to end.
    """
    limit = asyncio.timeout(deadline_s)
    before = _limit.set(limit)
    try:
        async with limit:
            return await write_safely(writer, group)
    except TimeoutError:
        late = f"no feedback came within {deadline_s:g} s"
        return [Feedback.failed(Kind.DEADLINE, late)] * len(group)
    finally:
        _limit.reset(before)


def is_late() -> bool:
    """Whether a writer that is being cancelled is so because its time is over.

    Otherwise nobody wants its feedback any more.
    """
    limit = _limit.get()
    return limit is not None and limit.expired()


async def write_safely(writer: Writer, group: Sequence[Attempt]) -> list[Feedback]:
    """What a writer says of each attempt, in order; an error where it fails as a whole.

    Raises:
      FeedbackError: the run is to end.
    """
    try:
        notes = list(await writer.write(group))
        if len(notes) != len(group) or not all(
            isinstance(note, Feedback) for note in notes
        ):
            found = sorted({type(note).__name__ for note in notes})
            raise TypeError(
                f"expected {len(group)} Feedback objects, one for each attempt in "
                f"order, got {len(notes)} of {found}"
            )
    except FeedbackError:
        raise
    # What a writer calls may fail in any way.
    except Exception as error:  # noqa: BLE001
        what = f"{type(writer).__name__}.write: {type(error).__name__}: {error}"
        return [Feedback.failed(Kind.FAILED, what)] * len(group)
    return notes


async def write_all(
    calls: Iterable[tuple[Writer, Sequence[Attempt]]],
) -> list[list[Feedback]]:
    """What several writers say, each of its attempts; they run at the same time."""
    return list(await asyncio.gather(*(write_safely(*call) for call in calls)))


async def aclose_all(writers: Iterable[object]) -> None:
    """Close the writers that hold something open; those have a method `aclose`."""
    for writer in writers:
        if (aclose := getattr(writer, "aclose", None)) is not None:
            await aclose()
