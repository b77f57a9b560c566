"""Language models that write feedback: endpoints, limits, recordings."""

from fdjax.feedback.chat.anthropic_api import AnthropicEndpoint
from fdjax.feedback.chat.chat import Answer, Chat, Failure, Question, Reply
from fdjax.feedback.chat.endpoint import (
    Completion,
    Connection,
    Endpoint,
    RequestError,
)
from fdjax.feedback.chat.openai_api import OpenAIEndpoint
from fdjax.feedback.chat.recorded import RecordedChat
from fdjax.feedback.chat.remote import Limits, RemoteChat

__all__ = [
    "Answer",
    "AnthropicEndpoint",
    "Chat",
    "Completion",
    "Connection",
    "Endpoint",
    "Failure",
    "Limits",
    "OpenAIEndpoint",
    "Question",
    "RecordedChat",
    "RemoteChat",
    "Reply",
    "RequestError",
]
