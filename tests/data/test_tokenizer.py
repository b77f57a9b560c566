import copy
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fdjax.data.tokenizer import (
    continuation_texts,
    continuation_tokens,
    control_tokens,
    token_texts,
    train_tokenizer,
)
from fdjax.errors import ConfigError
from small_tokenizers import BUILDS, PROOF, qwen, sentencepiece, unigram

TEXTS = [
    "theorem t (p q : Prop) (h1 : p ∧ q) : q := by",
    "  obtain ⟨h2, h3⟩ := h1\n  exact h3",
]
TOKENIZER = train_tokenizer(TEXTS * 3, vocab_size=400)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_round_trips(text):
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


@given(st.text(alphabet="ab ∧→⟨⟩\n ℕ𝔸h1:=", max_size=40))
@settings(max_examples=200, deadline=None)
def test_token_texts_join_to_the_text(text):
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert "".join(token_texts(TOKENIZER, ids)) == text
    assert len(token_texts(TOKENIZER, ids)) == len(ids)


@pytest.fixture(scope="module", params=BUILDS)
def other(request):
    """A tokenizer of another build than ours."""
    return BUILDS[request.param]()


def test_a_continuation_keeps_its_first_blank():
    """Llama 2's pieces of an indented proof, as a model samples them."""
    tokenizer = sentencepiece("prepend")
    pieces = ["▁▁", *"constructor", "<0x0A>", "▁▁", "ex", *"act", "▁", *"h.2", "</s>"]
    ids = tokenizer.convert_tokens_to_ids(pieces)
    assert continuation_texts(tokenizer, [ids]) == ["  constructor\n  exact h.2"]
    texts = token_texts(tokenizer, ids)
    assert texts[:2] == ["  ", "c"]
    assert texts[-2:] == ["2", ""]


@pytest.mark.parametrize("text", [PROOF, "exact h", "exact </s> h", "\n  exact", ""])
def test_a_continuation_round_trips(other, text):
    (ids,) = continuation_tokens(other, [text])
    assert continuation_texts(other, [ids]) == [text]
    assert not control_tokens(other).intersection(ids)


def test_a_continuation_has_no_blank_put_before_it():
    tokenizer = sentencepiece("prepend")
    (ids,) = continuation_tokens(tokenizer, ["ex"])
    assert tokenizer.convert_ids_to_tokens(ids) == ["ex"]
    # Read as a whole text, it would be the word with the blank.
    assert tokenizer.tokenize("ex") == ["▁ex"]


@pytest.mark.parametrize("tokenizer", [TOKENIZER, qwen()], ids=["ours", "qwen"])
def test_byte_level_continuations_are_tokenised_as_any_text(tokenizer):
    texts = [PROOF, "  exact h ∧", "<think> ℕ </think>", "a\n\n  b "]
    plain = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert continuation_tokens(tokenizer, texts) == plain


def test_control_tokens_among_the_words_of_a_vocabulary_are_spelled_out():
    tokenizer = unigram()
    plain = tokenizer("</s>", add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.eos_token_id in plain["input_ids"]
    (ids,) = continuation_tokens(tokenizer, ["h </s> h"])
    assert tokenizer.eos_token_id not in ids
    assert continuation_texts(tokenizer, [ids]) == ["h </s> h"]


def test_an_end_token_that_is_not_marked_special_is_no_text():
    tokenizer = qwen()
    tokenizer.eos_token = "</think>"
    (ids,) = continuation_tokens(tokenizer, ["h </think>"])
    assert tokenizer.eos_token_id not in ids
    (text,) = continuation_texts(tokenizer, [[*ids, tokenizer.eos_token_id]])
    assert text == "h </think>"


def test_tags_of_thinking_are_text_where_a_vocabulary_calls_them_special():
    """An answer begins behind `</think>`: whoever looks for it must see it."""
    tokenizer = copy.deepcopy(qwen())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    names = ["<think>", "h", "</think>", "<|im_end|>"]
    ids = tokenizer.convert_tokens_to_ids(names)
    assert continuation_texts(tokenizer, [ids]) == ["<think>h</think>"]
    assert token_texts(tokenizer, ids) == ["<think>", "h", "</think>", ""]


def test_token_texts_join_whatever_was_sampled(other):
    """Broken characters, control tokens and ids beyond the vocabulary included."""
    rng = random.Random(0)
    for length in range(40):
        ids = [rng.randrange(len(other) + 4) for _ in range(length)]
        texts = token_texts(other, ids)
        assert len(texts) == length
        assert ["".join(texts)] == continuation_texts(other, [ids])


@pytest.mark.parametrize("name", ["qwen", "prepend", "first", "never"])
@pytest.mark.parametrize("character", ["𝔸", "ℕ", "\N{REPLACEMENT CHARACTER}"])
def test_a_character_is_the_text_of_its_last_byte(name, character):
    tokenizer = BUILDS[name]()
    (ids,) = continuation_tokens(tokenizer, [f"x{character}y"])
    silent = [""] * (len(character.encode()) - 1)
    assert token_texts(tokenizer, ids) == ["x", *silent, character, "y"]


def test_frequent_lean_words_are_single_tokens():
    ids = TOKENIZER(TEXTS[1], add_special_tokens=False)["input_ids"]
    # Counted by hand: "  ", obtain, ⟨, h2, ",", h3, ⟩, :=, h1, line break, exact, h3.
    assert len(ids) == 12


def test_saved_as_hugging_face_tokenizer(tmp_path):
    TOKENIZER.save_pretrained(str(tmp_path))
    loaded = AutoTokenizer.from_pretrained(str(tmp_path))
    messages = [{"role": "user", "content": "x"}]
    render = {"tokenize": False, "add_generation_prompt": True}
    assert loaded.apply_chat_template(messages, **render) == "<|user|>x<|assistant|>"
    assert loaded("h1")["input_ids"] == TOKENIZER("h1")["input_ids"]
    assert loaded.pad_token_id == TOKENIZER.pad_token_id
    assert loaded.eos_token_id == TOKENIZER.eos_token_id


def test_vocabulary_must_hold_all_bytes():
    with pytest.raises(ConfigError, match="at least 260"):
        train_tokenizer(TEXTS, vocab_size=100)
