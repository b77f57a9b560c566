"""Token ids against the embedding table; one outside it stands for no row."""

import numpy as np
from jaxtyping import Bool, Int
from transformers import PreTrainedTokenizerBase

from fdjax.errors import ConfigError, DataError

__all__ = ["check_token_ids", "check_vocabulary"]


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> None:
    """Makes sure that the embedding table has a row for each token.

    The largest id decides, not the number of tokens: added ones may leave gaps. A
    table with more rows is right; many are filled up.

    Raises:
      ConfigError: it lacks one.
    """
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if largest >= vocab_size:
        raise ConfigError(
            f"expected token ids below vocab_size = {vocab_size}, got a tokenizer with "
            f"{token!r} = {largest}; take the model's own tokenizer, or without the "
            "tokens that were added to it, or a model whose embeddings were resized"
        )


def check_token_ids(
    tokens: Int[np.ndarray, "B T"], valid: Bool[np.ndarray, "B T"], vocab_size: int
) -> None:
    """Makes sure that the embedding table has a row for each id; padding may be any.

    Raises:
      DataError: it lacks one.
    """
    wrong = valid & ((tokens < 0) | (tokens >= vocab_size))
    if wrong.any():
        row, column = (int(index[0]) for index in np.nonzero(wrong))
        raise DataError(
            f"expected token ids from 0 to {vocab_size - 1}, below the model's "
            f"vocab_size, got {int(tokens[row, column])} in row {row}, column {column};"
            " take the model's own tokenizer"
        )
