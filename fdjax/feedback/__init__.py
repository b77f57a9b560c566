"""Feedback on attempts: text in, text out; no JAX."""

from fdjax.feedback.chat import (
    AnthropicEndpoint,
    Chat,
    Limits,
    OpenAIEndpoint,
    RecordedChat,
    RemoteChat,
)
from fdjax.feedback.compiler import CompilerFeedback
from fdjax.feedback.config import ModelFeedback, PolicyFeedback
from fdjax.feedback.constant import ConstantFeedback
from fdjax.feedback.critique import Critique, CritiqueSettings
from fdjax.feedback.failure import Kind
from fdjax.feedback.group_critique import GroupCritique
from fdjax.feedback.guard import LeakGuard
from fdjax.feedback.leak import Leak, LeakMeasure
from fdjax.feedback.metrics import feedback_metrics
from fdjax.feedback.mixture import Joined, Mixture
from fdjax.feedback.prompt import Caps, Template
from fdjax.feedback.reference import ReferenceHint
from fdjax.feedback.rows import attempt_row, iterate_groups
from fdjax.feedback.usage import Budget, Prices, Usage
from fdjax.feedback.watch import Watched
from fdjax.feedback.writer import Attempt, Feedback, Writer

__all__ = [
    "AnthropicEndpoint",
    "Attempt",
    "Budget",
    "Caps",
    "Chat",
    "CompilerFeedback",
    "ConstantFeedback",
    "Critique",
    "CritiqueSettings",
    "Feedback",
    "GroupCritique",
    "Joined",
    "Kind",
    "Leak",
    "LeakGuard",
    "LeakMeasure",
    "Limits",
    "Mixture",
    "ModelFeedback",
    "OpenAIEndpoint",
    "PolicyFeedback",
    "Prices",
    "RecordedChat",
    "ReferenceHint",
    "RemoteChat",
    "Template",
    "Usage",
    "Watched",
    "Writer",
    "attempt_row",
    "feedback_metrics",
    "iterate_groups",
]
