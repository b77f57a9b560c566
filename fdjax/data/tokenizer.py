"""Text to tokens and back, in the middle of a text; a tokenizer of our own for Lean.

Real provers bring their own tokenizer; ours serves models trained from scratch.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, SupportsIndex

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from fdjax.errors import ConfigError
from fdjax.ranges import Whole, require

__all__ = [
    "CHAT_TEMPLATE",
    "SMALLEST_VOCABULARY",
    "continuation_texts",
    "continuation_tokens",
    "control_tokens",
    "end_token",
    "pad_token",
    "settings_of",
    "token_texts",
    "train_tokenizer",
]

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"

SMALLEST_VOCABULARY = 256 + 4
"""Every byte and the special tokens."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

_THINKING = ("<think>", "</think>")
"""Tags that some vocabularies mark as special."""

# A Lean word with its leading blank, a line break with its indentation, or one symbol.
_LEAN_PIECES = r" ?[\p{L}\p{N}_.'!?]+|\n\s*| ?(?::=|[^\s\p{L}\p{N}])|\s+"


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int = 512
) -> PreTrainedTokenizerFast:
    """Trains a lossless tokenizer whose words do not cross Lean's own boundaries.

    Args:
      texts: Lean statements, proofs and feedback.
      vocab_size: entries, 256 bytes and 4 special tokens included.

    Returns:
      A Hugging Face tokenizer with a chat template; any string round-trips.

    Raises:
      ConfigError: the vocabulary cannot hold all bytes and special tokens.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [PAD, USER, ASSISTANT, END]
    require(
        "vocab_size",
        vocab_size,
        Whole(SMALLEST_VOCABULARY),
        remedy="it holds every byte and the special tokens",
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LEAN_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def settings_of(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """All that decides how a text is read and a prompt is written, as JSON values.

    Not the vocabulary alone: merges and normal forms decide as well.
    """
    # How rows were last cut or filled up is no property of the tokenizer.
    passing = {"truncation": None, "padding": None}
    return {
        "backend": json.loads(tokenizer.backend_tokenizer.to_str()) | passing,
        "chat_template": tokenizer.chat_template,
        "special": tokenizer.special_tokens_map,
    }


def continuation_tokens(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]
) -> list[list[int]]:
    """Ids of each text as it continues the text before it; nothing is added to it.

    A text that spells a control token is read as text. `continuation_texts` gives the
    texts back, unless the tokenizer itself changes texts (its Unicode normal form, or
    characters that its vocabulary lacks).
    """
    inside = _inside_text(tokenizer, len(tokenizer))
    spelled = control_tokens(tokenizer).difference([tokenizer.unk_token_id])

    def tokens_of(text: str) -> list[int]:
        encoding = inside.encode(text)
        for index, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if index in spelled and end - start > 1:
                # Some vocabularies list control tokens among their words.
                middle = (start + end) // 2
                return tokens_of(text[:middle]) + tokens_of(text[middle:])
        return encoding.ids

    return [tokens_of(text) for text in texts]


def continuation_texts(
    tokenizer: PreTrainedTokenizerFast, rows: Iterable[Iterable[SupportsIndex]]
) -> list[str]:
    """The text that each row of tokens adds to the text before it.

    `tokenizer.decode` takes its tokens for the beginning of a text: SentencePiece's
    decoders then drop the first blank, which is indentation in a proof. Control tokens
    and ids without a token add nothing, except that the tags around a model's thinking
    are text: they say where its answer begins.
    """
    return [_text(tokenizer, pieces) for pieces in _pieces(tokenizer, rows)]


def token_texts(
    tokenizer: PreTrainedTokenizerFast, tokens: Iterable[SupportsIndex]
) -> list[str]:
    """The text of each token; joined they are the row's continuation text.

    Tokens that have a text only together, such as the bytes of one character, give it
    to the last of them; the others give the empty string.
    """
    (pieces,) = _pieces(tokenizer, [tokens])
    texts = [""] * len(pieces)
    # Spans that remain to be split, each with its text.
    spans = [(0, len(pieces), _text(tokenizer, pieces))] if pieces else []
    while spans:
        start, end, text = spans.pop()
        # From the middle outwards: halves leave the fewest steps.
        for middle in sorted(
            range(start + 1, end), key=lambda place: abs(2 * place - start - end)
        ):
            left = _text(tokenizer, pieces[start:middle])
            right = _text(tokenizer, pieces[middle:end])
            if left + right == text:
                spans += [(start, middle, left), (middle, end, right)]
                break
        else:
            texts[end - 1] = text
    return texts


def control_tokens(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """Ids of the tokens that say something to the model and are no text."""
    added = tokenizer.added_tokens_decoder
    special = {index for index, token in added.items() if token.special}
    # Some chat models add their end token without marking it as special.
    return frozenset(special.union(tokenizer.all_special_ids))


@lru_cache(maxsize=4)
def _inside_text(tokenizer: PreTrainedTokenizerFast, size: int) -> Tokenizer:
    """A copy of the tokenizer's backend that reads the middle of a text.

    Tokenizers in the manner of SentencePiece put a blank before a text, which they take
    for a whole one. The copy's life ends when the tokenizer's `size` changes.
    """
    del size
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    copy = Tokenizer.from_str(
        json.dumps(
            parts
            | {name: _bare(parts[name]) for name in ("normalizer", "pre_tokenizer")}
            | {"post_processor": None, "truncation": None, "padding": None}
        )
    )
    copy.encode_special_tokens = True
    return copy


def _bare(part: Any) -> Any:
    """A part of tokenizer.json without what it does to the ends of a text."""
    match part:
        case {"type": "Sequence"}:
            (name,) = part.keys() - {"type"}
            return part | {name: [bare for each in part[name] if (bare := _bare(each))]}
        case {"type": "Prepend" | "Strip"}:
            return None
        case {"type": "Metaspace"}:
            return part | {"prepend_scheme": "never"}
        case {"add_prefix_space": _}:
            return part | {"add_prefix_space": False}
    return part


def _pieces(
    tokenizer: PreTrainedTokenizerFast, rows: Iterable[Iterable[SupportsIndex]]
) -> Iterator[list[str | None]]:
    """The vocabulary's entry for each token, None where it adds no text."""
    entry = tokenizer.backend_tokenizer.id_to_token
    control = {
        token
        for token in control_tokens(tokenizer)
        if entry(token) not in _THINKING or token == tokenizer.eos_token_id
    }
    for row in rows:
        yield [None if token in control else entry(token) for token in map(int, row)]


def _text(tokenizer: PreTrainedTokenizerFast, pieces: Iterable[str | None]) -> str:
    # What a decoder does to the first token of a text befalls this one.
    before = "x"
    present = [piece for piece in pieces if piece is not None]
    text = tokenizer.convert_tokens_to_string([before, *present])
    return text.removeprefix(before)


def end_token(tokenizer: PreTrainedTokenizerFast) -> int:
    """Id of the token that ends an answer.

    Raises:
      ConfigError: the tokenizer has none.
    """
    return _required(tokenizer.eos_token_id, "eos_token")


def pad_token(tokenizer: PreTrainedTokenizerFast) -> int:
    """Id of the token that fills rows up.

    Raises:
      ConfigError: the tokenizer has none.
    """
    return _required(tokenizer.pad_token_id, "pad_token")


def _required(token: object, name: str) -> int:
    if not isinstance(token, int):
        raise ConfigError(
            f"expected a tokenizer with a {name}, got {token!r}: set tokenizer.{name}"
        )
    return token
