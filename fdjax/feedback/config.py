"""A language model's feedback as configuration: from settings to a writer."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fdjax.errors import ConfigError
from fdjax.feedback.chat.anthropic_api import AnthropicEndpoint
from fdjax.feedback.chat.chat import Chat
from fdjax.feedback.chat.openai_api import OpenAIEndpoint
from fdjax.feedback.chat.recorded import RecordedChat
from fdjax.feedback.chat.remote import Limits, RemoteChat
from fdjax.feedback.critique import Critique, CritiqueSettings
from fdjax.feedback.group_critique import GroupCritique
from fdjax.feedback.guard import LeakGuard
from fdjax.feedback.prompt.template import Template
from fdjax.feedback.usage import Budget, Prices
from fdjax.feedback.watch import Watched
from fdjax.feedback.writer import Writer
from fdjax.ranges import FLAG, Among, Number, Whole, require_fields

__all__ = ["ModelFeedback", "PolicyFeedback"]


@dataclass(frozen=True, kw_only=True)
class _Reviews:
    """Reviews by a language model, guarded and watched."""

    per: Literal["attempt", "group"] = "attempt"
    """What one question is about (`Critique`, `GroupCritique`)."""
    most_attempts: int = 8
    """Attempts in a question about a group."""
    template: str | Path = ""
    """Name of one of fdjax's templates, or the path of your own; by default critique@1,
    group_critique@1 about groups."""
    settings: CritiqueSettings = field(default_factory=CritiqueSettings)
    """What the model is shown."""
    recording: Path | None = None
    """File that keeps all answers, and from which they are read; several runs may share
    it."""
    replay: bool = False
    """Whether to read the recording alone: nobody is asked."""
    leak: Literal["measure", "strip", "refuse"] = "measure"
    """What to do with feedback that gives a known proof away (`LeakGuard`)."""
    most_leak: float = 0.2
    """How much of a known proof is not too much, from 0 to 1."""
    max_missing_share: float = 0.5
    """Share of the newest attempts without feedback beyond which the run ends."""
    window: int = 256
    """How many attempts are the newest."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            per=Among("attempt", "group"),
            most_attempts=Whole(1),
            replay=FLAG,
            leak=Among("measure", "strip", "refuse"),
            most_leak=Number(least=0, most=1),
            max_missing_share=Number(least=0, most=1),
            window=Whole(1),
        )
        if self.replay and self.recording is None:
            raise ConfigError(
                f"expected {type(self).__name__}.recording with replay, got none: name "
                "the file to read"
            )

    def _watched(
        self, chat: Chat, at_budget: Literal["go on", "stop"] = "go on"
    ) -> Watched:
        """The writer that asks `chat`.

        Raises:
          ConfigError: there is no such template.
          DataError: the template cannot be read.
        """
        template = self.read_template()
        writer: Writer
        if self.per == "group":
            writer = GroupCritique(
                chat=chat,
                template=template,
                settings=self.settings,
                most_attempts=self.most_attempts,
            )
        else:
            writer = Critique(chat=chat, template=template, settings=self.settings)
        return Watched(
            LeakGuard(writer=writer, action=self.leak, most=self.most_leak),
            max_missing_share=self.max_missing_share,
            window=self.window,
            at_budget=at_budget,
        )

    def read_template(self) -> Template:
        """The template that is named, which `make` takes.

        Raises:
          ConfigError: there is no such template.
          DataError: it cannot be read.
        """
        if isinstance(self.template, Path) or self.template.endswith(".jinja"):
            return Template.read(Path(self.template))
        default = "group_critique@1" if self.per == "group" else "critique@1"
        return Template.packaged(self.template or default)


@dataclass(frozen=True, kw_only=True)
class ModelFeedback(_Reviews):
    """Reviews by a model behind an API, recorded, guarded and watched."""

    endpoint: OpenAIEndpoint | AnthropicEndpoint
    """The model."""
    limits: Limits = field(default_factory=Limits)
    """How hard and how long the server is asked."""
    prices: Prices | None = None
    """Of the model; without them nothing has a cost."""
    budget: Budget = field(default_factory=Budget)
    """How much one process may spend."""
    at_budget: Literal["go on", "stop"] = "go on"
    """What happens when the budget is used up (`Watched`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fields(self, at_budget=Among("go on", "stop"))
        self.budget.require_prices(self.prices)

    def make(self) -> Watched:
        """The writer; close it with `aclose`. A replay needs no key and no network.

        Raises:
          ConfigError: there is no key, or no such template.
          DataError: the template or the recording cannot be read.
          InstallError: the endpoint's SDK is missing.
        """
        return self._watched(self._chat(), self.at_budget)

    def _chat(self) -> Chat:
        if self.replay and self.recording is not None:
            return RecordedChat.replay(self.endpoint, self.recording)
        chat = RemoteChat(
            self.endpoint, limits=self.limits, prices=self.prices, budget=self.budget
        )
        return chat if self.recording is None else RecordedChat(chat, self.recording)


@dataclass(frozen=True, kw_only=True)
class PolicyFeedback(_Reviews):
    """Reviews by the policy that is trained, with the weights that wrote the attempts.

    The run samples them (`fdjax.rollout.PolicyChat`).
    """

    max_new_tokens: int = 512
    """Longest review, tokens; a longer one is no feedback (`cut`)."""
    prompt_tokens: int = 2048
    """Longest question, tokens; a longer one has no answer (`invalid`)."""
    temperature: float = 1.0
    """Sampling temperature."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fields(
            self,
            max_new_tokens=Whole(1),
            prompt_tokens=Whole(1),
            temperature=Number(above=0),
        )

    def make(self, chat: Chat) -> Watched:
        """The writer that asks `chat`; close it with `aclose`.

        Raises:
          ConfigError: there is no such template.
          DataError: the template cannot be read.
        """
        return self._watched(chat)
