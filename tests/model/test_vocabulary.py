"""Ids outside the embedding table: an error where they meet the model, NaN inside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from fdjax.errors import ConfigError
from fdjax.model import check_vocabulary
from tiny import MODEL, TOKENIZER

_LAST = MODEL.config.vocab_size - 1  # 303; the tokenizer's ids end below 300


def _with_tokens(count):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=TOKENIZER.backend_tokenizer)
    tokenizer.add_tokens([AddedToken(f"<t{i}>", special=True) for i in range(count)])
    return tokenizer


def test_a_table_has_a_row_for_every_token():
    spare = _LAST + 1 - len(TOKENIZER)
    check_vocabulary(_with_tokens(0), _LAST + 1)
    check_vocabulary(_with_tokens(spare), _LAST + 1)
    with pytest.raises(ConfigError, match=f"vocab_size = 304, got .*<t{spare}>' = 304"):
        check_vocabulary(_with_tokens(spare + 1), _LAST + 1)


def test_the_largest_id_decides_and_not_the_number_of_tokens(monkeypatch):
    tokenizer = _with_tokens(0)
    gap = tokenizer.get_vocab() | {"<far>": 999}
    monkeypatch.setattr(tokenizer, "get_vocab", lambda: gap)
    with pytest.raises(ConfigError, match="'<far>' = 999"):
        check_vocabulary(tokenizer, len(gap) + 1)


def test_an_id_outside_the_table_gives_nan_and_never_a_neighbours_row():
    params = jax.jit(MODEL.init)(jax.random.key(0))
    tokens = jnp.array([[5, 6, _LAST], [5, 6, _LAST + 1], [5, 6, -1], [-1, 6, _LAST]])
    valid = jnp.ones_like(tokens, bool).at[3, 0].set(False)
    logits = jax.jit(MODEL.apply)(params, tokens, valid=valid)
    assert jnp.isnan(logits[1:3, -1]).all()
    assert not jnp.isnan(logits[np.array([0, 3])]).any()
