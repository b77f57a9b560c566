"""Feedback on attempts: text in, text out; no JAX."""

from fdjax.feedback.compiler import CompilerFeedback
from fdjax.feedback.constant import ConstantFeedback
from fdjax.feedback.reference import ReferenceHint
from fdjax.feedback.writer import Attempt, Feedback, Writer

__all__ = [
    "Attempt",
    "CompilerFeedback",
    "ConstantFeedback",
    "Feedback",
    "ReferenceHint",
    "Writer",
]
