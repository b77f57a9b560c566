"""A writer that says the same of every attempt."""

from collections.abc import Sequence
from dataclasses import dataclass

from fdjax.errors import ConfigError
from fdjax.feedback.writer import Attempt, Feedback

__all__ = ["ConstantFeedback"]


@dataclass(frozen=True, kw_only=True)
class ConstantFeedback:
    """One text for every attempt, right or wrong: "Answer in French."."""

    text: str
    """What the teacher reads."""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ConfigError(
                "expected ConstantFeedback.text to say something, got a blank text: "
                "a teacher that reads nothing is FD(reads='nothing')"
            )

    async def write(self, group: Sequence[Attempt]) -> list[Feedback]:
        """Feedback on each attempt, in order (`Writer`)."""
        return [Feedback(parts=tuple(self.text.split("\n")))] * len(group)
