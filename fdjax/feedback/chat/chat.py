"""A language model as writers see it: questions in, replies or failures out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from fdjax.feedback.failure import Kind
from fdjax.feedback.usage import Usage

__all__ = ["Answer", "Chat", "Failure", "Finish", "Question", "Reply", "at_no_cost"]

Finish = Literal["complete", "cut", "refused"]
"""How an answer ended: by itself, at its limit of tokens, or by a refusal."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One request: what the model is told, and by which template."""

    system: str
    """Who it is and how to answer; empty for nothing."""
    user: str
    """What it is asked."""
    template: str
    """`name@version` of the template that both come from."""
    template_digest: str = ""
    """Of the template's text, for records (`Template.digest`)."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model answered."""

    text: str
    """Perhaps empty."""
    finish: Finish = "complete"
    """How the text ended."""
    usage: Usage = field(default_factory=Usage)
    """What it cost, retries included."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a question has no answer."""

    kind: Kind
    """Kind of the failure."""
    text: str
    """What happened, for people."""
    usage: Usage = field(default_factory=Usage)
    """What it cost all the same."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


Answer = Reply | Failure


def at_no_cost(answer: Answer) -> Answer:
    """The answer to whoever has it from a recording, or from an equal question."""
    return replace(answer, usage=Usage(recorded=int(isinstance(answer, Reply))))


class Chat(Protocol):
    """Answers questions, many at a time; all calls come from one event loop."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides an answer beside the question, as JSON: API, model, parameters.

        Recordings are keyed by it. It holds no secrets.
        """
        ...

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer for each question, in order; failures are answers, too."""
        ...

    async def aclose(self) -> None:
        """Close connections and files; closing again does nothing."""
        ...
