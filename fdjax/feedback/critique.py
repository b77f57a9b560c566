"""Feedback by a language model that reads the theorem, the attempt and Lean's words."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fdjax.errors import ConfigError
from fdjax.feedback.chat.chat import Answer, Chat, Failure, Question
from fdjax.feedback.compiler import error_offset
from fdjax.feedback.failure import Kind
from fdjax.feedback.known import peer_proofs
from fdjax.feedback.prompt.excerpt import Caps, excerpt, fence, theorem_of
from fdjax.feedback.prompt.template import Template
from fdjax.feedback.usage import Usage
from fdjax.feedback.writer import Attempt, Feedback
from fdjax.feedback.writing import aclose_all
from fdjax.judge import Judgement
from fdjax.judge.fences import CLOSING, OPENING
from fdjax.lean import Diagnostic, Status, Verdict
from fdjax.ranges import Whole, require_fields
from fdjax.records import Problem

__all__ = ["SAMPLE", "Critique", "CritiqueSettings"]

_MESSAGE = Diagnostic(severity="error", line=1, column=2, text="unknown tactic")
SAMPLE = Attempt(
    problem=Problem(name="sample", statement="theorem sample : True"),
    text="  sample",
    judgement=Judgement.by_lean(
        Verdict(status=Status.REJECTED, diagnostics=(_MESSAGE,)), "  sample"
    ),
)
"""An attempt for which templates are rendered once before any is paid for."""


@dataclass(frozen=True, kw_only=True)
class CritiqueSettings:
    """What the model is shown, and how its answer is read."""

    caps: Caps = field(default_factory=Caps)
    """How much of theorem, attempts and messages."""
    sentences: int = 6
    """How long a review may be; the model is told so."""
    references: int = 0
    """How many of the problem's known proofs the model reads."""
    peers: int = 0
    """How many proofs among the attempts of the group it reads, the shortest first."""
    passed: str | None = "verified: this proof is complete"
    """What is said of attempts that passed, without asking; None asks about them, too.
    """
    reasoning: tuple[str, str] | None = (OPENING, CLOSING)
    """Between what a model thinks in its text; only what follows is feedback. None for
    a model that does not, or whose server takes it out."""

    def __post_init__(self) -> None:
        require_fields(self, sentences=Whole(1), references=Whole(0), peers=Whole(0))
        if self.passed is not None and not self.passed.strip():
            raise ConfigError(
                "expected CritiqueSettings.passed to say something, got a blank text: "
                "None asks the model"
            )

    def asks_about(self, attempt: Attempt) -> bool:
        """Whether the model is asked about an attempt."""
        return self.passed is None or not attempt.judgement.passed

    def shown_proofs(self, group: Sequence[Attempt]) -> tuple[str, ...]:
        """The known proofs that the model reads, each once."""
        references = group[0].problem.references[: self.references]
        peers = peer_proofs(group)[: self.peers]
        return tuple(dict.fromkeys((*references, *peers)))

    def read(self, answer: Answer) -> str | Failure:
        """What the model says, without its reasoning; a failure where it says nothing.

        An answer that reached its limit of tokens is read as far as it goes.
        """
        if isinstance(answer, Failure):
            return answer
        if answer.finish == "refused":
            what = answer.text.strip()[:200] or "without a word"
            return Failure(kind=Kind.REFUSAL, text=what)
        text = answer.text
        if self.reasoning is not None:
            opening, closing = self.reasoning
            text = text.rpartition(closing)[2]
            if opening in text:
                return Failure(kind=Kind.CUT, text="the reasoning did not end")
        text = text.strip().encode("utf-8", "replace").decode()
        if text:
            return text
        if answer.finish == "cut":
            return Failure(kind=Kind.CUT, text="the limit of tokens came before a word")
        return Failure(kind=Kind.EMPTY, text="the model said nothing")


@dataclass(frozen=True, kw_only=True)
class Critique:
    """One question for each attempt (`Writer`)."""

    chat: Chat
    """The model."""
    template: Template = field(default_factory=lambda: Template.packaged("critique@1"))
    """What it is told and asked."""
    settings: CritiqueSettings = field(default_factory=CritiqueSettings)
    """What it is shown."""

    def __post_init__(self) -> None:
        self.question(SAMPLE, [SAMPLE])

    async def write(self, group: Sequence[Attempt]) -> list[Feedback]:
        """Feedback on each attempt, in order (`Writer`)."""
        asked = [attempt for attempt in group if self.settings.asks_about(attempt)]
        questions = [self.question(attempt, group) for attempt in asked]
        answers = await self.chat.ask([question for question, _ in questions])
        notes = iter(
            self._feedback(attempt, answer, cut)
            for attempt, answer, (_, cut) in zip(asked, answers, questions, strict=True)
        )
        passed = Feedback(parts=(self.settings.passed or "",))
        return [
            next(notes) if self.settings.asks_about(attempt) else passed
            for attempt in group
        ]

    def question(
        self, attempt: Attempt, group: Sequence[Attempt]
    ) -> tuple[Question, int]:
        """What the model is told about an attempt, and the characters left out.

        Raises:
          ConfigError: the template cannot be rendered; already when it is set.
        """
        caps = self.settings.caps
        theorem, informal, cut = theorem_of(attempt.problem, caps)
        shown = excerpt(attempt, caps)
        proofs = self.settings.shown_proofs(group)
        messages = [text for m in shown.messages for text in (m.text, m.code)]
        texts = (theorem, informal, shown.code, *messages, *shown.goals, *proofs)
        question = self.template.question(
            theorem=theorem,
            informal=informal,
            attempt=shown,
            known_proofs=proofs,
            sentences=self.settings.sentences,
            fence=fence("\n".join(texts)),
        )
        return question, cut + shown.cut_characters

    async def aclose(self) -> None:
        """Close the model."""
        await aclose_all([self.chat])

    def _feedback(self, attempt: Attempt, answer: Answer, cut: int) -> Feedback:
        usage = answer.usage + Usage(cut_characters=cut)
        text = self.settings.read(answer)
        if isinstance(text, Failure):
            return Feedback.failed(text.kind, text.text, usage=usage)
        if not isinstance(answer, Failure) and answer.finish == "cut":
            return Feedback.failed(
                Kind.CUT, "the answer reached its limit of tokens", usage=usage
            )
        return Feedback(
            parts=tuple(text.split("\n")), offset=error_offset(attempt), usage=usage
        )
