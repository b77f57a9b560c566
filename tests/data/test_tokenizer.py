import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fdjax.data.tokenizer import token_texts, train_tokenizer
from fdjax.errors import ConfigError

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
