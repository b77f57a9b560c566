"""A tokenizer against the embedding table: an id beyond it stands for no row."""

from transformers import PreTrainedTokenizerBase

from fdjax.errors import ConfigError

__all__ = ["check_vocabulary"]


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
