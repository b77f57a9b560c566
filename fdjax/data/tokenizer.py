"""A byte-level BPE tokenizer for Lean, built with `tokenizers`, saved as Hugging Face.

Real provers bring their own tokenizer; this one serves models trained from scratch.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from fdjax.errors import ConfigError
from fdjax.ranges import Whole, require

__all__ = [
    "CHAT_TEMPLATE",
    "SMALLEST_VOCABULARY",
    "end_token",
    "pad_token",
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


def token_texts(tokenizer: PreTrainedTokenizerFast, tokens: Iterable[int]) -> list[str]:
    """The text of each token, so that joining them gives the decoded string.

    A token that ends inside a multi-byte character contributes to the text where the
    character becomes complete; the tokens before it give the empty string.
    """
    texts, pending = [], []
    for token in tokens:
        pending.append(int(token))
        text = str(tokenizer.decode(pending, skip_special_tokens=True))
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            texts.append("")
            continue
        texts.append(text)
        pending = []
    if pending:
        texts[-1] = str(tokenizer.decode(pending, skip_special_tokens=True))
    return texts


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
