"""Calls of writers, which are anyone's code: what they may do wrong becomes data."""

import asyncio
from collections.abc import Iterable, Sequence

from fdjax.errors import FeedbackError
from fdjax.feedback.failure import Kind
from fdjax.feedback.writer import Attempt, Feedback, Writer

__all__ = ["aclose_all", "write_all", "write_safely"]


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
