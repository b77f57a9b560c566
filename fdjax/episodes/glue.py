"""What stands between two of the policy's turns, as the chat template writes it.

Sampled tokens are never encoded anew. Behind them come the end of the turn, the tools'
answers and the beginning of the next turn. Their text is what the chat template renders
behind a short stand-in for the turn: so it cannot depend on what the policy wrote, and
no template can change that.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from fdjax.data.formats import PromptFormat
from fdjax.data.tokenizer import continuation_tokens, control_tokens
from fdjax.episodes.calls import CallFormat, Messages
from fdjax.errors import ConfigError
from fdjax.judge.fences import CLOSING, OPENING
from fdjax.tools import Observation

__all__ = ["Glue"]

_TURN, _NEXT_TURN = "Stand-in-for-a-turn", "Stand-in-for-the-next"
_ANSWERS = ("Answer-one-of-a-tool", "Answer-two-of-a-tool")
_QUESTION = {"role": "user", "content": "Question"}


@dataclass(frozen=True, kw_only=True)
class Glue:
    """A chat template that has been seen to go on behind a turn."""

    tokenizer: PreTrainedTokenizerFast
    calls: CallFormat
    template: str
    """The chat template in force."""
    arguments: Mapping[str, Any]
    """What it is told besides."""
    spelled: re.Pattern[str]
    """Matches the control tokens in a text."""
    opened: bool
    """Whether the beginning of a turn ends with `<think>`."""
    rewrites: tuple[str, ...]
    """What the template writes otherwise when it renders a turn again: `thinking`,
    `blanks` at its ends, its `beginning` (between prompt and turn). The policy goes on
    from what it wrote, so for such turns its context is not what the template makes of
    the conversation."""

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerFast,
        format: PromptFormat,
        calls: CallFormat,
    ) -> "Glue":
        """Tries a template on a conversation of two turns.

        Args:
          tokenizer: the model's own.
          format: that tells of the tools (`CallFormat.asking`).
          calls: writes their answers.

        Raises:
          ConfigError: the template cannot go on behind a turn: it refuses the answers,
            leaves them or the turn out, or writes them differently later.
        """
        template = format.chat_template or tokenizer.get_chat_template(
            tools=format.arguments.get("tools")
        )
        probe = cls(
            tokenizer=tokenizer,
            calls=calls,
            template=template,
            arguments=format.arguments,
            spelled=re.compile("(?!)"),
            opened=False,
            rewrites=(),
        )
        one, two = probe._tried()
        written = "\0".join((one, two, template))
        return cls(
            tokenizer=tokenizer,
            calls=calls,
            template=template,
            arguments=format.arguments,
            spelled=_control_pattern(tokenizer, written),
            opened=one.rstrip().endswith(OPENING),
            rewrites=probe._rewritten(one, two),
        )

    def text(self, observations: Sequence[Observation]) -> str:
        """What the template writes behind a turn, from its end mark on.

        Control tokens that an observation spells have a blank in them: they are text.
        """
        return _behind(self._render(self._answered(_TURN, observations)), _TURN)

    def tokens(self, observations: Sequence[Observation], last: int) -> list[int]:
        """Token ids of `text`, without the end mark where the policy wrote it.

        They are what the tokenizer makes of this text in the middle of a conversation.

        Args:
          observations: the answers to the turn's calls.
          last: the turn's last token.
        """
        text = self.text(observations)
        mark = self.spelled.search(text)
        if mark is None:
            [ids] = continuation_tokens(self.tokenizer, [text])
            return ids
        if self.tokenizer.convert_tokens_to_ids(mark[0]) == last:
            return self._encoded(text[mark.start() :])[1:]
        [ids] = continuation_tokens(self.tokenizer, [text[: mark.start()]])
        return ids + self._encoded(text[mark.start() :])

    def _encoded(self, text: str) -> list[int]:
        """Ids of a text that begins with a control token."""
        encoded = self.tokenizer(text, add_special_tokens=False)
        return cast(list[int], encoded["input_ids"])

    def _answered(self, turn: str, observations: Sequence[Observation]) -> Messages:
        """The messages of a turn and the answers to it."""
        answers = self.calls.messages(observations)
        return [
            {"role": "assistant", "content": turn},
            *(
                answer | {"content": self._with_blanks(answer["content"])}
                for answer in answers
            ),
        ]

    def _with_blanks(self, text: str) -> str:
        return self.spelled.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _render(self, messages: Messages) -> str:
        rendered = self.tokenizer.apply_chat_template(
            [_QUESTION, *messages],
            chat_template=self.template,
            add_generation_prompt=True,
            tokenize=False,
            **self.arguments,
        )
        return cast(str, rendered)

    def _tried(self) -> tuple[str, str]:
        """A conversation of one turn and one of two, both as they should be."""
        first, second = map(_observation, _ANSWERS)
        turns = self._answered(_TURN, [first, second])
        later = self._answered(_NEXT_TURN, [first, second])
        try:
            one, two = self._render(turns), self._render([*turns, *later])
        except TemplateError as error:
            raise _unfit(f"one that refuses it: {error}") from error
        for rendered, marks in (
            (one, (_TURN, *_ANSWERS)),
            (two, (_TURN, *_ANSWERS, _NEXT_TURN, *_ANSWERS)),
        ):
            if not _in_order(rendered, marks):
                raise _unfit("one that leaves turns or answers out, or moves them")
        if _behind(one, _TURN) != _behind(two, _NEXT_TURN):
            raise _unfit("one that writes the answers to a later turn differently")
        return one, two

    def _rewritten(self, one: str, two: str) -> tuple[str, ...]:
        """See `rewrites`."""
        answers = list(map(_observation, _ANSWERS))
        turns = {
            "thinking": f"{OPENING}\n{_TURN}\n{CLOSING}\n\n{_NEXT_TURN}",
            "blanks": f"  {_TURN}\n\n",
        }
        found = [] if two.startswith(f"{one}{_NEXT_TURN}") else ["beginning"]
        for what, turn in turns.items():
            later = self._answered(_NEXT_TURN, answers)
            rendered = self._render([*self._answered(turn, answers), *later])
            if turn not in rendered:
                found.append(what)
        return tuple(found)


def _observation(text: str) -> Observation:
    return Observation(tool="tool", arguments={}, text=text, ended="done")


def _behind(rendered: str, mark: str) -> str:
    return rendered.partition(mark)[2]


def _in_order(rendered: str, marks: Sequence[str]) -> bool:
    position = 0
    for mark in marks:
        position = rendered.find(mark, position)
        if position < 0:
            return False
        position += len(mark)
    return all(rendered.count(mark) == marks.count(mark) for mark in marks)


def _unfit(got: str) -> ConfigError:
    return ConfigError(
        "expected a chat template that goes on behind an assistant's turn with a "
        f"tool's answers, got {got}: take fdjax.episodes.Fenced, which answers as the "
        "user, or correct tokenizer.chat_template"
    )


def _control_pattern(
    tokenizer: PreTrainedTokenizerFast, written: str
) -> re.Pattern[str]:
    """Matches the control tokens, and other added ones that the template writes."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    texts = {text for text in added if text in written and not text.isspace()}
    texts.update(tokenizer.convert_ids_to_tokens(sorted(control_tokens(tokenizer))))
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
