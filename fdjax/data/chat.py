"""Prompts as a model's tokenizer writes them: the same chat for student and teacher."""

import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from fdjax.data.formats import PLAIN, PromptFormat
from fdjax.data.tokenizer import continuation_tokens, control_tokens, end_token
from fdjax.errors import ConfigError, DataError
from fdjax.judge.fences import OPENING
from fdjax.records import Problem, is_unicode

__all__ = ["TODAY", "prompt_text", "prompt_tokens", "proof_tokens"]

TODAY = datetime(2024, 7, 26)
"""What chat templates take for today, Llama 3's own default: a prompt must be the same
on the day when a run goes on."""
_SIGNS = "aAbBdHIjmMpSuUVwWyY"
"""What a date may be made of, each behind a percent sign."""


def prompt_tokens(
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[Problem],
    feedback: Sequence[str | None] | None = None,
    format: PromptFormat = PLAIN,
) -> list[list[int]]:
    """Token ids of each prompt, up to and including the generation prompt.

    Only the chat template and the format's `prefill` write control tokens: where a
    problem or its feedback spells one, the model reads the letters.

    Args:
      tokenizer: the model's own.
      problems: what is asked.
      feedback: for each problem what the teacher reads, or None.
      format: how it is asked.

    Raises:
      ConfigError: there is no chat template, or it cannot render the format.
      DataError: `feedback` is not one text or None for each problem, or a text is not
        valid Unicode.
    """
    chat = _chat(tokenizer, format)
    notes = [None] * len(problems) if feedback is None else feedback
    if len(notes) != len(problems):
        raise DataError(
            f"expected feedback, or None, for each of {len(problems)} problems, got "
            f"{len(notes)}"
        )
    return [
        chat.tokens(chat.prompt(problem, note))
        for problem, note in zip(problems, notes, strict=True)
    ]


def prompt_text(
    tokenizer: PreTrainedTokenizerFast,
    problem: Problem,
    feedback: str | None = None,
    format: PromptFormat = PLAIN,
) -> str:
    """A prompt as people read it; `prompt_tokens` gives the tokens of this text.

    Raises:
      ConfigError: there is no chat template, or it cannot render the format.
      DataError: a text is not valid Unicode.
    """
    chat = _chat(tokenizer, format)
    return cast(str, chat.rendered(chat.prompt(problem, feedback), tokenize=False))


def proof_tokens(
    tokenizer: PreTrainedTokenizerFast, proofs: Sequence[str]
) -> list[list[int]]:
    """Token ids of each answer as the assistant would write it, end token included."""
    end = end_token(tokenizer)
    return [[*tokens, end] for tokens in continuation_tokens(tokenizer, proofs)]


@dataclass(frozen=True, kw_only=True)
class _Prompt:
    """One prompt before it is rendered."""

    messages: list[dict[str, str]]
    """Turns of the chat; what they spell is text."""
    template: str
    """The chat template, with the beginning of the assistant's turn behind it."""


@dataclass(frozen=True, kw_only=True)
class _Chat:
    """A tokenizer and a format that have been seen to go together."""

    tokenizer: PreTrainedTokenizerFast
    """Knows all control tokens."""
    template: str
    """The chat template in force."""
    format: PromptFormat
    spelled: re.Pattern[str]
    """Matches the control tokens in a text."""

    def prompt(self, problem: Problem, feedback: str | None) -> _Prompt:
        """The prompt for a problem; valid Unicode."""
        messages = _messages(self.format, self.format.user_turn(problem, feedback))
        beginning = self._beginning(problem)
        texts = [beginning, *(message["content"] for message in messages)]
        if not all(map(is_unicode, texts)):
            raise DataError(
                f"expected a prompt for {problem.name} in valid Unicode, got a lone "
                "surrogate, which no tokenizer reads: mend the statement, its header "
                "or the feedback"
            )
        return _Prompt(messages=messages, template=_extended(self.template, beginning))

    def tokens(self, prompt: _Prompt) -> list[int]:
        """The prompt's token ids."""
        try:
            ids = self.rendered(prompt, sanitize_control_tokens=True)
        except ValueError:
            # A vocabulary that lists control tokens among its words has no other
            # spelling.
            messages = [
                message | {"content": self._with_blanks(message["content"])}
                for message in prompt.messages
            ]
            prompt = replace(prompt, messages=messages)
            ids = self.rendered(prompt, sanitize_control_tokens=True)
        return cast(list[int], ids)

    def rendered(self, prompt: _Prompt, **options: bool) -> str | list[int]:
        """The prompt as text or as token ids, whichever transformers is asked for."""
        rendered = self.tokenizer.apply_chat_template(
            prompt.messages,
            chat_template=prompt.template,
            add_generation_prompt=True,
            return_dict=False,
            **options,
            **self.format.arguments,
        )
        return cast(str | list[int], rendered)

    def _beginning(self, problem: Problem) -> str:
        """The beginning of the assistant's turn, where only the format is trusted."""
        if not self.format.prefill:
            return ""
        names = ("name", "header", "statement", "informal")
        texts = {name: self._with_blanks(getattr(problem, name)) for name in names}
        return self.format.beginning(replace(problem, **texts))

    def _with_blanks(self, text: str) -> str:
        """The text with a blank inside each control token that it spells."""
        return self.spelled.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def _chat(tokenizer: PreTrainedTokenizerFast, format: PromptFormat) -> _Chat:
    template = _template(tokenizer, format)
    _require_variables(format, template)
    rendered = _probe(tokenizer, format, template)
    _require_thinking(format, rendered)
    control = _control_texts(tokenizer, f"{template}\0{format.prefill}\0{rendered}")
    reader = copy(tokenizer)
    reader.chat_control_tokens = control
    return _Chat(
        tokenizer=reader,
        template=_dated(template),
        format=format,
        spelled=re.compile("|".join(map(re.escape, control)) or "(?!)"),
    )


def _template(tokenizer: PreTrainedTokenizerFast, format: PromptFormat) -> str:
    """The chat template in force."""
    if format.chat_template is not None:
        return format.chat_template
    try:
        template = tokenizer.get_chat_template(tools=format.arguments.get("tools"))
    except ValueError:
        template = None
    if not template:
        raise ConfigError(
            "expected a tokenizer with a chat template, got "
            f"{tokenizer.name_or_path or 'one'} without: set tokenizer.chat_template "
            "to the model's own, or take fdjax.data.formats.COMPLETION for a base "
            "model, which continues the text after `:= by`"
        )
    return template


def _require_variables(format: PromptFormat, template: str) -> None:
    """No argument may do nothing: a switch that is not read is not switched."""
    unread = [
        name
        for name in format.arguments
        if not re.search(rf"\b{re.escape(name)}\b", template)
    ]
    if unread:
        raise ConfigError(
            "PromptFormat.arguments: expected variables that the chat template reads, "
            f"got {', '.join(unread)}, which does not occur in it: correct the name, "
            "or take a format for this model"
        )


def _probe(
    tokenizer: PreTrainedTokenizerFast, format: PromptFormat, template: str
) -> str:
    """What the chat template makes of a short message."""
    try:
        rendered = cast(
            str,
            tokenizer.apply_chat_template(
                _messages(format, "x"),
                chat_template=template,
                add_generation_prompt=True,
                tokenize=False,
                **format.arguments,
            ),
        )
    except TemplateError as error:
        turns = "a system message and one" if format.system else "one message"
        raise ConfigError(
            f"expected a chat template that renders {turns} of the user's, got: "
            f"{error}: correct tokenizer.chat_template, or change the prompt format"
        ) from error
    if format.system and format.system.strip() not in rendered:
        raise ConfigError(
            "PromptFormat.system: expected a chat template that renders it, got one "
            "that leaves it out: put it into PromptFormat.user"
        )
    return rendered


def _require_thinking(format: PromptFormat, rendered: str) -> None:
    """Where the prompt opens the thinking, a draft in it is no answer."""
    probe = Problem(name="x", statement="theorem x : True")
    beginning = format.beginning(probe)
    if not f"{rendered}{beginning}".rstrip().endswith(OPENING):
        return
    if format.extract(probe, "```lean4\ntrivial\n```").submission is not None:
        raise ConfigError(
            "PromptFormat.extract: expected one for a prompt that ends with "
            f"{OPENING}, got one that takes unfinished thinking for an answer: take "
            "fdjax.data.formats.CHAT_THINKING, or AfterThinking(extract=..., "
            "opened=True)"
        )


def _control_texts(tokenizer: PreTrainedTokenizerFast, written: str) -> list[str]:
    """The control tokens, and others that occur in what was written, longest first.

    transformers looks for the others in the template's own text, where a role's token
    that is put together (`'<|' + role + '|>'`) does not occur.
    """
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    texts = {text for text in added if text in written and not text.isspace()}
    texts.update(tokenizer.convert_ids_to_tokens(sorted(control_tokens(tokenizer))))
    texts.update(tokenizer.chat_control_tokens or ())
    return sorted(texts, key=len, reverse=True)


def _messages(format: PromptFormat, question: str) -> list[dict[str, str]]:
    user = {"role": "user", "content": question}
    if format.system is None:
        return [user]
    return [{"role": "system", "content": format.system}, user]


def _dated(template: str) -> str:
    """A Jinja template to which every day is `TODAY`."""
    if "strftime_now" not in template:
        return template
    changes = "".join(
        f" | replace('%{sign}', '{TODAY.strftime('%' + sign)}')" for sign in _SIGNS
    )
    macro = (
        f"{{% macro strftime_now(format) %}}{{{{ format{changes} }}}}{{% endmacro %}}"
    )
    # Behind a block, Jinja drops a line break; not so behind a value.
    return f"{macro}{{{{ '' }}}}{template}"


def _extended(template: str, text: str) -> str:
    """A Jinja template that renders a text behind what it renders by itself."""
    if not text:
        return template
    escaped = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    # A line break at the end of a template is rendered where something follows it.
    return template.removesuffix("\n") + '{{ "' + escaped + '" }}'
