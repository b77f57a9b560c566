"""A language model that is a function: the policy itself, or a fake in a test."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fdjax.errors import FeedbackError
from fdjax.feedback.chat.chat import Answer, Failure, Question, Reply
from fdjax.feedback.failure import Kind

__all__ = ["Generate", "PolicyChat"]

Generate = Callable[[Sequence[str]], Awaitable[Sequence[str | None]]]
"""Prompts to answers, in order; None for one that reached its limit of tokens."""


@dataclass(frozen=True, kw_only=True)
class PolicyChat:
    """Answers by an async function from texts to texts (`Chat`).

    The function applies the model's chat template, and knows devices and parameters;
    here is text alone. One call holds all questions of a group; behind a recording it
    holds one.
    """

    generate: Generate
    """Called with one text for each question: what the model is told, a blank line,
    what it is asked."""
    model: str = "policy"
    """Name of the model in recordings; a policy that learns needs another at each
    step, or an old answer is read for a new model."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """API, model and parameters."""
        return {"api": "function", "model": self.model, "parameters": {}}

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer for each question, in order (`Chat`)."""
        texts = ["\n\n".join(filter(None, (q.system, q.user))) for q in questions]
        if not texts:
            return []
        try:
            answers = list(await self.generate(texts))
            if len(answers) != len(texts):
                raise ValueError(
                    f"expected {len(texts)} answers, one for each prompt in order, got "
                    f"{len(answers)}"
                )
        except FeedbackError:
            raise
        # The function is anyone's code, and devices fail in many ways.
        except Exception as error:  # noqa: BLE001
            what = f"{type(error).__name__}: {error}"
            return [Failure(kind=Kind.FAILED, text=what)] * len(texts)
        return [_reply(answer) for answer in answers]

    async def aclose(self) -> None:
        """Nothing to close: the function's owner does."""


def _reply(answer: str | None) -> Reply:
    return Reply(text="", finish="cut") if answer is None else Reply(text=answer)
