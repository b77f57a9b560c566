"""Tokenizers beside a model: too long for it, or read otherwise than they are meant."""

import json
import shutil

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from checkpoint.folders import CONFIG, write_folder
from fdjax.checkpoint import (
    convert,
    load_pretrained,
    open_source,
    save_pretrained,
    write_description,
)
from fdjax.checkpoint.description import check_description, read_config, stop_tokens
from fdjax.errors import CheckpointError, ConfigError
from fdjax.model import ModelConfig, config_to_hf
from tiny import TOKENIZER, mesh_of

_SHAPES = {
    "qwen3": {},
    "qwen2": {"qk_norm": False, "attention_bias": True},
    "llama": {"qk_norm": False},
    "llama with biases": {
        "qk_norm": False,
        "attention_bias": True,
        "output_bias": True,
    },
}
# A run of blanks that continues a line, which Qwen's rules cut before its last blank.
_TEXT = "theorem t (p q : Prop) : p ∧ q := by\n  exact ⟨h1, h2⟩\n      "


def _config(**flags):
    return ModelConfig(
        vocab_size=304,
        hidden_size=16,
        intermediate_size=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=2,
        head_dim=8,
        **flags,
    )


def _copy_of_tokenizer():
    """TOKENIZER as an object of its own, with one token more."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=TOKENIZER.backend_tokenizer,
        pad_token=TOKENIZER.pad_token,
        eos_token=TOKENIZER.eos_token,
        chat_template=TOKENIZER.chat_template,
    )
    tokenizer.add_tokens([AddedToken("<|lemma|>", special=True)])
    return tokenizer


@pytest.fixture
def qwen2(tmp_path):
    """A folder of Qwen2's type, which transformers reads with Qwen's own rules."""
    TOKENIZER.save_pretrained(str(tmp_path / "qwen2"))
    content = config_to_hf(_config(**_SHAPES["qwen2"])) | {"model_type": "qwen2"}
    content |= {"architectures": ["Qwen2ForCausalLM"]}
    (tmp_path / "qwen2" / "config.json").write_text(json.dumps(content))
    return tmp_path / "qwen2"


@pytest.mark.parametrize("shape", _SHAPES)
def test_a_description_reads_as_it_was_written(tmp_path, shape):
    config = _config(**_SHAPES[shape])
    write_description(tmp_path, config, TOKENIZER)
    assert read_config(tmp_path)[1] == config
    read = AutoTokenizer.from_pretrained(str(tmp_path))
    assert read(_TEXT)["input_ids"] == TOKENIZER(_TEXT)["input_ids"]
    content = json.loads((tmp_path / "config.json").read_text())
    ends = [content[f"{name}_token_id"] for name in ("bos", "eos", "pad")]
    assert ends == [None, TOKENIZER.eos_token_id, TOKENIZER.pad_token_id]
    check_description(tmp_path, config, TOKENIZER)


def test_a_tokenizer_that_transformers_replaces_is_an_error(qwen2):
    _, config = read_config(qwen2)
    read = AutoTokenizer.from_pretrained(str(qwen2))
    assert read(_TEXT)["input_ids"] != TOKENIZER(_TEXT)["input_ids"]
    for tokenizer in (None, TOKENIZER):
        with pytest.raises(CheckpointError, match=r"Qwen2Tokenizer: token \d+ of"):
            check_description(qwen2, config, tokenizer)
    # Copied, it reads as before; and so it does for who trains with what is read.
    check_description(qwen2, config, trained=False)
    check_description(qwen2, config, read)


def test_a_tokenizer_that_is_not_the_folders_is_an_error(tmp_path):
    write_description(tmp_path, CONFIG, TOKENIZER)
    longer = _copy_of_tokenizer()
    with pytest.raises(CheckpointError, match=r"'<\|lemma\|>' is 31 instead of 299"):
        check_description(tmp_path, CONFIG, longer)
    longer.save_pretrained(str(tmp_path))
    check_description(tmp_path, CONFIG, longer)
    with pytest.raises(CheckpointError, match=r"has the token '<\|lemma\|>' as well"):
        check_description(tmp_path, CONFIG, TOKENIZER)
    end = _copy_of_tokenizer()
    end.eos_token = "<|lemma|>"
    with pytest.raises(CheckpointError, match="its eos_token_id is"):
        check_description(tmp_path, CONFIG, end)
    (tmp_path / "tokenizer.json").rename(tmp_path / "tokenizer.model")
    with pytest.raises(CheckpointError, match=r"got none; save it there"):
        check_description(tmp_path, CONFIG, longer)
    check_description(tmp_path, CONFIG)


def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path):
    write_description(tmp_path, CONFIG, TOKENIZER)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=f"can read in {tmp_path}.*download"):
        check_description(tmp_path, CONFIG)


def test_every_way_in_and_out_looks_at_the_tokenizer(tmp_path):
    """Its last id is one beyond the table."""
    source = write_folder(tmp_path / "hf")
    found = load_pretrained(source, mesh_of())
    longer = _copy_of_tokenizer()
    longer.add_tokens([AddedToken(f"<{i}>") for i in range(CONFIG.vocab_size)])
    shutil.copytree(source, tmp_path / "long")
    longer.save_pretrained(str(tmp_path / "long"))
    message = "expected token ids below vocab_size = 304"
    with pytest.raises(ConfigError, match=message):
        load_pretrained(tmp_path / "long", mesh_of())
    with pytest.raises(ConfigError, match=message):
        convert(open_source(tmp_path / "long"), tmp_path / "new", to="orbax")
    with pytest.raises(ConfigError, match=message):
        write_description(tmp_path / "new", CONFIG, longer)
    with pytest.raises(ConfigError, match=message):
        save_pretrained(
            found.params, CONFIG, tmp_path / "new", description=tmp_path / "long"
        )
    with pytest.raises(CheckpointError, match="as it was given"):
        save_pretrained(
            found.params,
            CONFIG,
            tmp_path / "new",
            description=source,
            tokenizer=_copy_of_tokenizer(),
        )
    assert not (tmp_path / "new").exists()
    save_pretrained(
        found.params,
        CONFIG,
        tmp_path / "new",
        description=source,
        tokenizer=TOKENIZER,
    )


def test_a_byte_level_tokenizer_under_llamas_class_keeps_its_text(tmp_path):
    """So DeepSeek's provers are stored; the clean-up is what Llama 3 asks for."""
    config = _config(**_SHAPES["llama"])
    write_description(tmp_path, config, TOKENIZER)
    path = tmp_path / "tokenizer_config.json"
    content = json.loads(path.read_text())
    content |= {"tokenizer_class": "LlamaTokenizerFast"}
    content |= {"clean_up_tokenization_spaces": True}
    path.write_text(json.dumps(content))
    check_description(tmp_path, config, TOKENIZER)
    read = AutoTokenizer.from_pretrained(str(tmp_path))
    for text in ("refine ?_", "exact .inl h", "  p ∧ ¬ q , don 't"):
        assert read.decode(read(text)["input_ids"]) == text


@pytest.mark.parametrize(
    ("generation", "config", "want"),
    [
        (None, 7, (7,)),
        (None, [7, 8], (7, 8)),
        (None, None, ()),
        ({"eos_token_id": [5, 6]}, 7, (5, 6)),
        ({"eos_token_id": 0}, 7, (0,)),
        ({"temperature": 1.0}, 7, ()),
    ],
)
def test_stop_tokens_are_those_of_generate(tmp_path, generation, config, want):
    """As `adjust_generation_fn` reads config.json only where there is no other."""
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": config}))
    if generation is not None:
        path = tmp_path / "generation_config.json"
        path.write_text(json.dumps(generation))
    assert stop_tokens(tmp_path) == want


@pytest.mark.parametrize("token", ["<end>", True, 2.0])
def test_a_stop_token_that_is_no_id_is_an_error(tmp_path, token):
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [token]}))
    with pytest.raises(CheckpointError, match=rf"an id or a list .*{token}"):
        stop_tokens(tmp_path)
