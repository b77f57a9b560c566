"""Feedback on attempts: text in, text out; no JAX."""

from fdjax.feedback.compiler import CompilerFeedback
from fdjax.feedback.provider import Attempt, Feedback, Provider
from fdjax.feedback.reference import ReferenceHint

__all__ = ["Attempt", "CompilerFeedback", "Feedback", "Provider", "ReferenceHint"]
