"""The command `fdjax feedback`: a model's answers ahead of time, for later replays."""

from fdjax.feedback_command.options import FeedbackOptions
from fdjax.feedback_command.run import write_ahead

__all__ = ["FeedbackOptions", "write_ahead"]
