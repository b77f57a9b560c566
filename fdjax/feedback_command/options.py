"""What a run of `fdjax feedback` is told."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fdjax.errors import ConfigError
from fdjax.feedback import (
    AnthropicEndpoint,
    Budget,
    Caps,
    CritiqueSettings,
    Limits,
    ModelFeedback,
    OpenAIEndpoint,
    Prices,
)

__all__ = ["FeedbackOptions"]


@dataclass(frozen=True, kw_only=True)
class FeedbackOptions:
    """Who writes and how; the command line's options."""

    writer: Literal["openai", "anthropic"]
    """API of the model: OpenAI's chat completions, which many servers speak, or
    Anthropic's messages."""
    model: str
    """The server's name of the model."""
    base_url: str = ""
    """Address of the API; the provider's own by default."""
    key_env: str | None = None
    """Environment variable that holds the key; OPENAI_API_KEY or ANTHROPIC_API_KEY by
    default, and empty for a server that asks for none."""
    max_tokens: int = 2048
    """Tokens of an answer at most."""
    parameters: str = "{}"
    """Further fields of a request as a JSON object, such as '{"temperature": 0.7}'."""
    per: Literal["attempt", "group"] = "attempt"
    """Whether a question is about one attempt or about those at one theorem."""
    template: str = ""
    """Name of a template, or the path of your own; fdjax's newest by default."""
    sentences: int = CritiqueSettings().sentences
    """How long a review may be."""
    references: int = 0
    """Known proofs of the theorem that the model reads."""
    peers: int = 0
    """Proofs among the attempts of a group that the model reads."""
    caps: Caps = field(default_factory=Caps)
    """How much of theorem, attempts and messages the model reads."""
    concurrency: int = Limits().concurrency
    """Requests under way at a time."""
    requests_per_minute: float | None = None
    """Pace at which requests start."""
    timeout: float = Limits().timeout_s
    """Longest time for one request, in seconds."""
    attempts: int = Limits().attempts
    """How often a question is sent at most."""
    price_input: float = 0.0
    """US dollars for 10^6 tokens of input."""
    price_output: float = 0.0
    """US dollars for 10^6 tokens of output."""
    budget_usd: float | None = None
    """US dollars to spend at most."""
    budget_tokens: int | None = None
    """Tokens to use at most."""

    def config(self, recording: Path) -> ModelFeedback:
        """The writer's configuration; a run with the same can replay the recording.

        Raises:
          ConfigError: an option is out of range, or does not fit another.
        """
        given: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "parameters": self._parameters(),
        }
        if self.base_url:
            given["base_url"] = self.base_url
        if self.key_env is not None:
            given["key_env"] = self.key_env
        kinds = {"openai": OpenAIEndpoint, "anthropic": AnthropicEndpoint}
        return ModelFeedback(
            endpoint=kinds[self.writer](**given),
            per=self.per,
            template=self.template,
            settings=CritiqueSettings(
                caps=self.caps,
                sentences=self.sentences,
                references=self.references,
                peers=self.peers,
            ),
            limits=Limits(
                concurrency=self.concurrency,
                requests_per_minute=self.requests_per_minute,
                timeout_s=self.timeout,
                attempts=self.attempts,
                # Nobody waits for a batch here.
                deadline_s=86_400.0,
            ),
            prices=Prices(input=self.price_input, output=self.price_output),
            budget=Budget(tokens=self.budget_tokens, cost_usd=self.budget_usd),
            recording=recording,
        )

    def _parameters(self) -> dict[str, Any]:
        try:
            value = json.loads(self.parameters)
        except ValueError as error:
            raise ConfigError(
                f"--parameters: expected a JSON object, got {self.parameters!r} "
                f"({error}); put it between single quotes"
            ) from error
        if not isinstance(value, dict):
            raise ConfigError(
                f"--parameters: expected a JSON object, got {self.parameters!r}; write "
                "names and values between braces"
            )
        return value
