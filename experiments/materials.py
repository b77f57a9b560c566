"""What all arms are made from: checked theorems, rows for SFT, tokenizer, model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from experiments.context import RunContext
from experiments.dataset import (
    Row,
    check_problems,
    corrupted_rows,
    make_splits,
    plain_rows,
    reworded_rows,
)
from fdjax.data.chat import prompt_tokens, proof_tokens
from fdjax.data.packing import padded_width
from fdjax.data.problems import write_problems
from fdjax.data.tokenizer import end_token, pad_token, train_tokenizer
from fdjax.feedback import CompilerFeedback, Provider, ReferenceHint
from fdjax.model import Model, ModelConfig, config_to_hf
from fdjax.records import Problem
from fdjax.rollout import RolloutEngine
from fdjax.sampling import SamplingConfig, make_generate

__all__ = ["Materials", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Data and model of a run."""

    context: RunContext
    splits: dict[str, list[Problem]]
    """Theorems by use: sft, pool, validation, test."""
    plain: list[Row]
    """Reference proofs of the sft split without feedback and withheld tactics."""
    informed: list[Row]
    """Reference proofs of the sft split after feedback on another attempt."""
    provider: Provider
    tokenizer: PreTrainedTokenizerFast
    model: Model
    prompt_width: int
    """Tokens of the student's prompt."""
    teacher_width: int
    """Tokens of the teacher's prompt, which holds the feedback too."""

    def engine(self, prompt_width: int) -> RolloutEngine:
        """Samples and verifies attempts at prompts of up to `prompt_width` tokens."""
        config = self.context.config.rollout
        sampling = SamplingConfig(
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            stop_tokens=(end_token(self.tokenizer),),
            pad_token=pad_token(self.tokenizer),
        )
        return RolloutEngine(
            generate=make_generate(self.model, sampling, mesh=self.context.mesh),
            tokenizer=self.tokenizer,
            verifier=self.context.verifier,
            provider=self.provider,
            prompt_width=prompt_width,
        )

    def fitting(self, rows: Sequence[Row], width: int) -> list[Row]:
        """Rows whose prompt (`width` tokens) and proof fit; others are counted."""
        problems, notes, proofs = zip(*rows, strict=True)
        prompts = prompt_tokens(self.tokenizer, problems, notes)
        responses = proof_tokens(self.tokenizer, proofs)
        limit = self.context.config.rollout.max_new_tokens
        kept = [
            row
            for row, prompt, response in zip(rows, prompts, responses, strict=True)
            if len(prompt) <= width and len(response) <= limit
        ]
        if len(kept) < len(rows):
            self.context.display.say(
                f"[dim]{len(rows) - len(kept)} of {len(rows)} rows exceed the token "
                "limits and are left out of SFT[/]"
            )
        return kept


def prepare(context: RunContext) -> Materials:
    """Makes theorems, has Lean check every one, and builds tokenizer and model."""
    config = context.config
    with context.timed("data"), context.task("Making theorems", 1) as progress:
        splits = make_splits(config.data)
        everything = [problem for split in splits.values() for problem in split]
        progress(1, f"{len(everything)} theorems")
    write_problems(everything, context.folder / "problems.jsonl")
    total = sum(len(problem.references) for problem in everything)
    with context.timed("lean"), context.task("Lean: references", total) as progress:
        check_problems(everything, context.verifier, progress)
    provider = ReferenceHint(base=CompilerFeedback(), plan=config.fd.plan)
    count = config.data.mistakes
    with context.timed("lean"), context.task("Lean: mistakes", count) as progress:
        informed = corrupted_rows(
            splits["sft"],
            context.verifier,
            provider,
            count=count,
            seed=config.data.seed,
            progress=progress,
        )
    plain = plain_rows(splits["sft"], config.data.withheld)
    tokenizer = train_tokenizer(
        [text for row in plain for text in (row[0].statement, row[2])]
        + [text for row in informed for text in (row[1] or "", row[2])],
        vocab_size=config.model.vocab_size,
    )
    model = _model(context, len(tokenizer))
    _describe(context.folder / "model", model, tokenizer)
    prompts = prompt_tokens(tokenizer, everything)
    width = padded_width([len(ids) for ids in prompts], 8)
    rewordings, seed = config.data.rewordings, config.seed
    return Materials(
        context=context,
        splits=splits,
        plain=reworded_rows(plain, copies=rewordings, seed=seed),
        informed=reworded_rows(informed, copies=rewordings, seed=seed),
        provider=provider,
        tokenizer=tokenizer,
        model=model,
        prompt_width=width,
        teacher_width=width + config.rollout.feedback_tokens,
    )


def _model(context: RunContext, vocab_size: int) -> Model:
    size = context.config.model
    return Model(
        ModelConfig(
            vocab_size=vocab_size,
            hidden_size=size.hidden_size,
            intermediate_size=size.intermediate_size,
            num_layers=size.num_layers,
            num_heads=size.num_heads,
            num_kv_heads=size.num_kv_heads,
            head_dim=size.head_dim,
            max_position_embeddings=512,
            remat="none",
            unroll=True,
        ),
        context.mesh,
    )


def _describe(folder: Path, model: Model, tokenizer: PreTrainedTokenizerFast) -> None:
    """What a checkpoint of the run lacks of a Hugging Face folder."""
    tokenizer.save_pretrained(str(folder))
    content = config_to_hf(model.config) | {
        "eos_token_id": end_token(tokenizer),
        "pad_token_id": pad_token(tokenizer),
    }
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n")
