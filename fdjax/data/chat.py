"""Prompts: the same chat for student and teacher, feedback added on the user side."""

import re
from collections.abc import Sequence
from copy import copy
from typing import cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from fdjax.data.tokenizer import continuation_tokens, control_tokens, end_token
from fdjax.errors import ConfigError, DataError
from fdjax.records import Problem, is_unicode

__all__ = ["COMPLETION_TEMPLATE", "prompt_tokens", "proof_tokens", "user_message"]

COMPLETION_TEMPLATE = "{{ bos_token }}{{ messages[0]['content'] }}{{ '\\n' }}"
"""For provers without a chat: the proof continues the text after `:= by`."""


def user_message(problem: Problem, feedback: str | None = None) -> str:
    """What the user asks; the teacher's version begins with the feedback.

    Feedback comes first, so that the distance from statement to proof is the same for
    student and teacher. A header and a line comment end with their line.
    """
    header = problem.header
    if header and not header.endswith("\n"):
        header += "\n"
    last_line = problem.statement.rpartition("\n")[2]
    opening = "\n  := by" if "--" in last_line else " := by"
    question = f"{header}{problem.statement}{opening}"
    return f"{feedback}\n{question}" if feedback else question


def prompt_tokens(
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[Problem],
    feedback: Sequence[str | None] | None = None,
) -> list[list[int]]:
    """Token ids of each prompt, up to and including the generation prompt.

    Only the chat template writes control tokens: where a problem or its feedback spells
    one, the model reads the letters.

    Raises:
      ConfigError: the tokenizer has no chat template, or one that cannot render a
        user's message.
      DataError: `feedback` is not one text or None for each problem, or a text is not
        valid Unicode.
    """
    _require_template(tokenizer)
    notes = [None] * len(problems) if feedback is None else feedback
    if len(notes) != len(problems):
        raise DataError(
            f"expected feedback, or None, for each of {len(problems)} problems, got "
            f"{len(notes)}"
        )
    messages = [
        user_message(problem, note)
        for problem, note in zip(problems, notes, strict=True)
    ]
    if not messages:
        return []
    for problem, message in zip(problems, messages, strict=True):
        if not is_unicode(message):
            raise DataError(
                f"expected a prompt for {problem.name} in valid Unicode, got a lone "
                "surrogate, which no tokenizer reads: mend the statement, its header "
                "or the feedback"
            )
    reader = copy(tokenizer)
    control = reader.chat_control_tokens = _control_texts(tokenizer)
    try:
        return _chat_tokens(reader, messages)
    except ValueError:
        # A vocabulary that lists control tokens among its words has no other spelling.
        return _chat_tokens(reader, _with_blanks(control, messages))


def proof_tokens(
    tokenizer: PreTrainedTokenizerFast, proofs: Sequence[str]
) -> list[list[int]]:
    """Token ids of each proof as the assistant would write it, end token included."""
    end = end_token(tokenizer)
    return [[*tokens, end] for tokens in continuation_tokens(tokenizer, proofs)]


def _require_template(tokenizer: PreTrainedTokenizerFast) -> None:
    try:
        template = tokenizer.get_chat_template()
    except ValueError:
        template = None
    if not template:
        raise ConfigError(
            "expected a tokenizer with a chat template, got "
            f"{tokenizer.name_or_path or 'one'} without: set tokenizer.chat_template "
            "to the model's own, or to fdjax.data.chat.COMPLETION_TEMPLATE for a base "
            "model, which continues the text after `:= by`"
        )


def _control_texts(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The control tokens, and others that the template writes, longest first.

    transformers looks for the others in the template's own text, where a role's token
    that is put together (`'<|' + role + '|>'`) does not occur.
    """
    try:
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": "x"}],
            add_generation_prompt=True,
            tokenize=False,
        )
    except TemplateError as error:
        raise ConfigError(
            "expected a chat template that renders one message of the user's, got: "
            f"{error}: correct tokenizer.chat_template"
        ) from error
    written = f"{tokenizer.get_chat_template()}\0{rendered}"
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    texts = {text for text in added if text in written and not text.isspace()}
    texts.update(tokenizer.convert_ids_to_tokens(sorted(control_tokens(tokenizer))))
    texts.update(tokenizer.chat_control_tokens or ())
    return sorted(texts, key=len, reverse=True)


def _chat_tokens(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[str]
) -> list[list[int]]:
    ids = tokenizer.apply_chat_template(
        [[{"role": "user", "content": message}] for message in messages],
        add_generation_prompt=True,
        return_dict=False,
        sanitize_control_tokens=True,
    )
    return cast(list[list[int]], ids)


def _with_blanks(control: Sequence[str], messages: Sequence[str]) -> list[str]:
    """The messages with a blank inside each control token that they spell."""
    pattern = re.compile("|".join(map(re.escape, control)))
    return [
        pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", message)
        for message in messages
    ]
