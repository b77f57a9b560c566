"""The words of a turn, with the tags of its calls."""

import numpy as np
from jaxtyping import Int32
from transformers import PreTrainedTokenizerFast

from fdjax.data.tokenizer import continuation_texts

__all__ = ["words"]

_TAGS = ("<tool_call>", "</tool_call>")


def words(tokenizer: PreTrainedTokenizerFast, tokens: Int32[np.ndarray, " N"]) -> str:
    """The text of a turn without control tokens.

    Tags of calls and of thinking are text, though some vocabularies mark them as
    control tokens.
    """
    added = tokenizer.get_added_vocab()
    tags = {added[tag]: tag for tag in _TAGS if tag in added}
    rows: list[list[int]] = [[]]
    between: list[str] = []
    for token in map(int, tokens):
        if token in tags:
            between.append(tags[token])
            rows.append([])
        else:
            rows[-1].append(token)
    first, *others = continuation_texts(tokenizer, rows)
    return first + "".join(
        tag + text for tag, text in zip(between, others, strict=True)
    )
