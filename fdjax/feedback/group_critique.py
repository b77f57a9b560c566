"""Feedback on all attempts of a group by one answer of a language model."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from fdjax.feedback.chat.chat import Answer, Chat, Failure, Question, Reply
from fdjax.feedback.compiler import error_offset
from fdjax.feedback.critique import SAMPLE, CritiqueSettings
from fdjax.feedback.failure import Kind
from fdjax.feedback.prompt.excerpt import Excerpt, excerpt, fence, theorem_of
from fdjax.feedback.prompt.template import Template
from fdjax.feedback.usage import Usage
from fdjax.feedback.writer import Attempt, Feedback
from fdjax.feedback.writing import aclose_all
from fdjax.ranges import Whole, require_fields

__all__ = ["GroupCritique"]


@dataclass(frozen=True, kw_only=True)
class GroupCritique:
    """One question for a group, with a review of each attempt in the answer (`Writer`).

    The theorem is read once instead of G times, and the model can compare. Equal
    attempts get one review.
    """

    chat: Chat
    """The model."""
    template: Template = field(
        default_factory=lambda: Template.packaged("group_critique@1")
    )
    """What it is told and asked."""
    settings: CritiqueSettings = field(default_factory=CritiqueSettings)
    """What it is shown."""
    most_attempts: int = 8
    """Attempts in one question; a larger group is asked about in several."""

    def __post_init__(self) -> None:
        require_fields(self, most_attempts=Whole(1))
        self.question([excerpt(SAMPLE, self.settings.caps)], [SAMPLE])

    async def write(self, group: Sequence[Attempt]) -> list[Feedback]:
        """Feedback on each attempt, in order (`Writer`)."""
        settings = self.settings
        rows: dict[Excerpt, list[int]] = {}
        for row, attempt in enumerate(group):
            if settings.asks_about(attempt):
                rows.setdefault(excerpt(attempt, settings.caps), []).append(row)
        shown = list(rows)
        parts = [
            shown[start : start + self.most_attempts]
            for start in range(0, len(shown), self.most_attempts)
        ]
        questions = [self.question(part, group) for part in parts]
        answers = await self.chat.ask([question for question, _, _ in questions])
        notes = dict.fromkeys(
            range(len(group)), Feedback(parts=(settings.passed or "",))
        )
        for part, (_, headings, cut), answer in zip(
            parts, questions, answers, strict=True
        ):
            reviews = self._reviews(answer, headings)
            usage = answer.usage + Usage(cut_characters=cut)
            for one, review in zip(part, reviews, strict=True):
                for row in rows[one]:
                    notes[row] = _feedback(group[row], review, usage)
                    # The answer is paid for once.
                    usage = Usage()
        return list(notes.values())

    def question(
        self, shown: Sequence[Excerpt], group: Sequence[Attempt]
    ) -> tuple[Question, list[str], int]:
        """What the model is told about some attempts at the group's problem.

        Returns:
          The question, the heading of each attempt, the characters left out.

        Raises:
          ConfigError: the template cannot be rendered; already when it is set.
        """
        theorem, informal, cut = theorem_of(group[0].problem, self.settings.caps)
        proofs = self.settings.shown_proofs(group)
        headings = _headings([theorem, *(one.code for one in shown)], len(shown))
        messages = [
            text for one in shown for m in one.messages for text in (m.text, m.code)
        ]
        goals = [goal for one in shown for goal in one.goals]
        texts = (
            theorem,
            informal,
            *(one.code for one in shown),
            *messages,
            *goals,
            *proofs,
        )
        question = self.template.question(
            theorem=theorem,
            informal=informal,
            attempts=shown,
            headings=headings,
            known_proofs=proofs,
            sentences=self.settings.sentences,
            fence=fence("\n".join(texts)),
        )
        return question, headings, cut + sum(one.cut_characters for one in shown)

    async def aclose(self) -> None:
        """Close the model."""
        await aclose_all([self.chat])

    def _reviews(self, answer: Answer, headings: list[str]) -> list[str | Failure]:
        """The review under each heading, or why there is none."""
        text = self.settings.read(answer)
        if isinstance(text, Failure):
            return [text] * len(headings)
        sections, last = _sections(text, headings)
        cut = isinstance(answer, Reply) and answer.finish == "cut"
        return [
            Failure(kind=Kind.CUT, text="the answer reached its limit of tokens")
            if cut and heading == last
            else _review(sections.get(heading, []))
            for heading in headings
        ]


def _headings(texts: Sequence[str], count: int) -> list[str]:
    """Lines that none of the texts can hold by chance or on purpose.

    An attempt that imitates a heading would have to contain a digest of itself.
    """
    digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:8]
    return [f"=== attempt {number} · {digest} ===" for number in range(1, count + 1)]


def _sections(
    text: str, headings: Sequence[str]
) -> tuple[dict[str, list[str]], str | None]:
    """What stands under each heading, and the heading that came last.

    A heading is a whole line, blanks and Markdown's marks around it aside. What comes
    before the first is no review. A heading that comes twice has two texts.
    """
    sections: dict[str, list[str]] = {}
    last: str | None = None
    for line in text.split("\n"):
        heading = line.strip(" \t\r*#`")
        if heading in headings:
            sections.setdefault(heading, []).append("")
            last = heading
        elif last is not None:
            sections[last][-1] += f"{line}\n"
    return sections, last


def _review(texts: Sequence[str]) -> str | Failure:
    """The one text under a heading."""
    if len(texts) != 1:
        what = f"expected one review under its heading, got {len(texts)}"
        return Failure(kind=Kind.UNANSWERED, text=what)
    if not texts[0].strip():
        return Failure(kind=Kind.EMPTY, text="nothing stands under its heading")
    return texts[0].strip()


def _feedback(attempt: Attempt, review: str | Failure, usage: Usage) -> Feedback:
    if isinstance(review, Failure):
        return Feedback.failed(review.kind, review.text, usage=usage)
    return Feedback(
        parts=tuple(review.split("\n")), offset=error_offset(attempt), usage=usage
    )
