"""What stands beside the weights: config.json, tokenizer, generation config."""

import json
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from fdjax.checkpoint.hf_folder import read_json
from fdjax.errors import CheckpointError
from fdjax.files import write_whole
from fdjax.model import ModelConfig, check_vocabulary, config_from_hf, config_to_hf

__all__ = [
    "check_description",
    "read_config",
    "stop_tokens",
    "write_description",
]

_CONFIG, _GENERATION = "config.json", "generation_config.json"

_TOKENIZERS = ("tokenizer.json", "vocab.json")
"""Files of tokenizers that transformers reads by itself. For tokenizer.model it wants
other packages, and who only wants the weights need not have them."""

_AS_WRITTEN = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""What tokenizer_class says where tokenizer.json is all there is to a tokenizer."""

_PROBES = (
    "theorem t (p q : Prop) (h : p ∧ ¬q) : ∃ x₁, f' x₁ ≤ 2 ^ 10 := by\n  exact ⟨h, _⟩",
    "\n\n  · simp only [foo_bar, ← Nat.succ_le]\r\n\t    at *   -- Größe, e\u0301\n",
    " leading blank, 1234567890, I'LL we'll\u00a0λ α ↦ α →₀ ℝ≥0∞",
)
"""Texts that tokenizers cut differently: blanks, digits, symbols, composed letters."""


def read_config(folder: Path) -> tuple[dict[str, Any], ModelConfig]:
    """The content of a folder's config.json, and the model that it describes.

    Raises:
      CheckpointError: there is no such file, or it names files of weights, which
        transformers would read and we would not.
      ConfigError: the model is none that the decoder is.
    """
    content = read_json(folder / _CONFIG)
    if content.get("transformers_weights") is not None:
        raise CheckpointError(
            f"Expected no transformers_weights in {folder / _CONFIG}, got "
            f"{content['transformers_weights']!r}, which transformers reads instead of "
            "model.safetensors; give the file that name, and leave the key out."
        )
    return content, config_from_hf(content)


def check_description(
    folder: Path,
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    trained: bool = True,
) -> None:
    """Makes sure that a folder's tokenizer, if it has one, and a model fit together.

    Args:
      folder: of config.json and tokenizer.
      config: the model.
      tokenizer: what the folder's tokenizer has to be: the one that was trained with.
        By default, and where its own files say that they are all there is to it, what
        is written.
      trained: whether the folder goes into training or comes out of it. One that is
        only copied reads afterwards as before, whatever that is.

    Raises:
      CheckpointError: transformers cannot read the folder's tokenizer, or reads
        another one.
      ConfigError: the embedding table lacks a row for one of its tokens.
    """
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        if tokenizer is not None:
            raise CheckpointError(
                f"Expected the tokenizer in {folder}, got none; save it there: "
                "tokenizer.save_pretrained."
            )
        return
    read = _read_tokenizer(folder)
    if tokenizer is None and trained and type(read) is not PreTrainedTokenizerFast:
        tokenizer = _as_written(folder)
    if tokenizer is not None:
        _check_same(tokenizer, read, folder)
    check_vocabulary(read, config.vocab_size)


def stop_tokens(folder: Path) -> tuple[int, ...]:
    """Ids that end an answer, as transformers' `generate` has them.

    Those of generation_config.json where there is one, else of config.json.
    """
    name = _GENERATION if (folder / _GENERATION).is_file() else _CONFIG
    found = read_json(folder / name).get("eos_token_id")
    ids = found if isinstance(found, list) else [] if found is None else [found]
    # JSON's true would be taken for the id 1.
    wrong = [token for token in ids if type(token) is not int]
    if wrong:
        raise CheckpointError(
            f"Expected eos_token_id in {folder / name} to be an id or a list of them, "
            f"got {found!r}; correct it."
        )
    return tuple(ids)


def write_description(
    folder: Path, config: ModelConfig, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Writes config.json and tokenizer of a model made from nothing.

    Raises:
      CheckpointError: transformers would read the tokenizer otherwise than it is.
      ConfigError: the model is of no family, or its embedding table lacks a row for
        one of the tokens.
    """
    check_vocabulary(tokenizer, config.vocab_size)
    # As keywords, because they refuse a key that both sides give.
    content = dict(
        **config_to_hf(config),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )

    def write(to: Path) -> None:
        tokenizer.save_pretrained(str(to))
        write_whole(to / _CONFIG, f"{json.dumps(content, indent=2)}\n".encode())

    with TemporaryDirectory() as trial:
        write(Path(trial))
        _check_same(tokenizer, _read_tokenizer(Path(trial)), folder)
    write(folder)


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # of tokenizers: it knows no other
        raise CheckpointError(
            f"Expected a tokenizer that transformers can read in {folder}, got: "
            f"{error}; download its files again, or move them away to do without."
        ) from error


def _as_written(folder: Path) -> PreTrainedTokenizerFast | None:
    """The tokenizer that tokenizer.json is, if its class says that this is all."""
    path = folder / "tokenizer_config.json"
    said = read_json(path).get("tokenizer_class") if path.is_file() else None
    if said not in _AS_WRITTEN or not (folder / "tokenizer.json").is_file():
        return None
    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def _check_same(
    tokenizer: PreTrainedTokenizerBase, read: PreTrainedTokenizerBase, folder: Path
) -> None:
    difference = _difference(tokenizer, read)
    if difference:
        raise CheckpointError(
            f"Expected transformers to read the tokenizer of {folder} as it was given, "
            f"got a {type(read).__name__}: {difference}. Save the tokenizer that the "
            "model was trained with; where transformers replaces it because of "
            "config.json's model_type, as for qwen2, let config_to_hf write "
            "config.json, which chooses a type that keeps it."
        )


def _difference(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str:
    """The first thing that tells two tokenizers apart, in words; "" if nothing does."""
    tokens = sorted(one.get_vocab().values())
    pieces, others = (
        tokenizer.batch_decode([[token] for token in tokens])
        for tokenizer in (one, other)
    )
    texts = [*_PROBES, *one.all_special_tokens, *pieces]
    for text, ours, theirs in zip(
        texts, one(texts)["input_ids"], other(texts)["input_ids"], strict=True
    ):
        if ours != theirs:
            pairs = enumerate(zip_longest(theirs, ours))
            place, (got, want) = next(p for p in pairs if p[1][0] != p[1][1])
            return f"token {place} of {text!r} is {got} instead of {want}"
    for token, ours, theirs in zip(tokens, pieces, others, strict=True):
        if ours != theirs:
            return f"the text of token {token} is {theirs!r} instead of {ours!r}"
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "chat_template"):
        ours, theirs = getattr(one, name), getattr(other, name)
        if ours != theirs:
            return f"its {name} is {theirs!r} instead of {ours!r}"
    added = sorted(set(other.get_vocab()) - set(one.get_vocab()))
    return f"it has the token {added[0]!r} as well" if added else ""
