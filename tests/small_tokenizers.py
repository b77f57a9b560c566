"""Tokenizers built like those of Qwen, Llama 2, Gemma, Llama 3.x and T5, but small."""

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ZEPHYR = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n"
    "{{ m['content'] | trim }}</s>\n{% endfor %}<|assistant|>\n"
)
PROOF = "  constructor\n  exact h.2\n  exact h.1"
TEXTS = ["theorem t (p q : Prop) (h : p ∧ q) : q ∧ p := by", PROOF, "</s> <s> <unk>"]


def qwen() -> PreTrainedTokenizerFast:
    """Byte-level BPE with Qwen's pre-tokenizer; `<think>` is added, but not special."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    pieces = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXTS, BpeTrainer(vocab_size=300, initial_alphabet=alphabet, **QUIET)
    )
    backend.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    backend.add_tokens(["<think>", "</think>"])
    return _wrap(backend, pad="<|endoftext|>", eos="<|im_end|>", template=CHATML)


def sentencepiece(prefix: str) -> PreTrainedTokenizerFast:
    """BPE over whole texts with bytes for what it lacks, padded with its end token.

    Args:
      prefix: who puts a blank before a text: the normalizer (`prepend`, Llama 2 and
        CodeLlama), Metaspace (`always`, `first`), or nobody (`never`, Gemma).
    """
    words = ["▁", "▁▁", "▁e", "▁ex", "ex", *"abcdefghijklmnopqrstuvwxyz.:12T∧⟨⟩"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *words]
    backend = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=[("▁", "▁"), ("▁", "e"), ("▁e", "x"), ("e", "x")],
            byte_fallback=True,
            unk_token="<unk>",
            fuse_unk=True,
        )
    )
    blank = normalizers.Replace(" ", "▁")
    bytes_ = [decoders.ByteFallback(), decoders.Fuse()]
    to_text = [decoders.Replace("▁", " "), *bytes_]
    match prefix:
        case "prepend":
            backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), blank])
            backend.decoder = decoders.Sequence([*to_text, decoders.Strip(" ", 1, 0)])
        case "never":
            backend.normalizer = blank
            backend.decoder = decoders.Sequence(to_text)
        case _:
            backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix)
            metaspace = decoders.Metaspace(prepend_scheme=prefix)
            backend.decoder = decoders.Sequence([metaspace, *bytes_])
    return _wrap_sentencepiece(backend)


def unigram() -> PreTrainedTokenizerFast:
    """SentencePiece's other model; its control tokens are words of its vocabulary."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = UnigramTrainer(
        vocab_size=80,
        special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>",
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz|_\n"),
        **QUIET,
    )
    backend.train_from_iterator(TEXTS, trainer)
    return _wrap_sentencepiece(backend)


QUIET = {"show_progress": False}
BUILDS = {
    "qwen": qwen,
    **{
        name: lambda name=name: sentencepiece(name)
        for name in ("prepend", "always", "first", "never")
    },
    "unigram": unigram,
}


def _wrap_sentencepiece(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    special = {"bos_token": "<s>", "unk_token": "<unk>"}
    return _wrap(backend, pad="</s>", eos="</s>", template=ZEPHYR, **special)


def _wrap(
    backend: Tokenizer, *, pad: str, eos: str, template: str, **special: str
) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        eos_token=eos,
        chat_template=template,
        clean_up_tokenization_spaces=False,
        **special,
    )
