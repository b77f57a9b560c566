"""What all arms are made from: checked theorems, rows for SFT, tokenizer, model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from transformers import PreTrainedTokenizerFast

from experiments.miniature.config import ComparisonConfig
from experiments.miniature.dataset import (
    Row,
    check_problems,
    corrupted_rows,
    make_splits,
    plain_rows,
    reworded_rows,
)
from fdjax.checkpoint import write_description
from fdjax.data.chat import prompt_tokens, proof_tokens
from fdjax.data.packing import padded_width
from fdjax.data.problems import write_problems
from fdjax.data.tokenizer import end_token, train_tokenizer
from fdjax.episodes import Budget, Episodes
from fdjax.feedback import CompilerFeedback, ReferenceHint, Writer
from fdjax.judge import LeanJudge
from fdjax.lean import Verifier
from fdjax.model import Model
from fdjax.records import Problem
from fdjax.rollout import EventLoop, Pipeline
from fdjax.run.context import RunContext
from fdjax.sampling import SamplingConfig, SlotSampler, SlotsConfig

__all__ = ["Materials", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Data and model of a run."""

    context: RunContext[ComparisonConfig]
    verifier: Verifier
    splits: dict[str, list[Problem]]
    """Theorems by use: sft, pool, validation, test."""
    plain: list[Row]
    """Reference proofs of the sft split without feedback and withheld tactics."""
    informed: list[Row]
    """Reference proofs of the sft split after feedback on another attempt."""
    writer: Writer
    tokenizer: PreTrainedTokenizerFast
    model: Model
    prompt_width: int
    """Tokens of the student's prompt."""
    teacher_width: int
    """Tokens of the teacher's prompt, which holds the feedback too."""
    minif2f_width: int
    """Tokens of the prompts of miniF2F."""
    loop: EventLoop = field(default_factory=EventLoop, repr=False)
    """Where judge and writer run."""

    @cached_property
    def _sampler(self) -> SlotSampler:
        """Of all arms; attempts are short, so all of an iteration fit into slots."""
        config = self.context.config.rollout
        return SlotSampler(
            self.model,
            SamplingConfig(
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                stop_tokens=(end_token(self.tokenizer),),
            ),
            SlotsConfig(
                longest=self.model.config.max_position_embeddings,
                slots=config.attempts,
                page=16,
            ),
            self.context.mesh,
        )

    def pipeline(self, prompt_width: int) -> Pipeline:
        """Samples and judges attempts at prompts of up to `prompt_width` tokens."""
        limit = self.context.config.rollout.max_new_tokens
        return Pipeline(
            sampler=self._sampler,
            episodes=Episodes(
                tokenizer=self.tokenizer,
                budget=Budget(tokens=limit, prompt_tokens=prompt_width),
            ),
            judge=LeanJudge(verifier=self.verifier),
            writer=self.writer,
            watch=self.context.stop.watch,
            journal=self.context.journal,
            loop=self.loop,
        )

    def fitting(self, rows: Sequence[Row], width: int) -> list[Row]:
        """Rows whose prompt (`width` tokens) and proof fit; others are counted."""
        if not rows:
            return []
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


def prepare(
    context: RunContext[ComparisonConfig],
    verifier: Verifier,
    minif2f: Sequence[Problem] = (),
) -> Materials:
    """Makes theorems, has Lean check every one, and builds tokenizer and model.

    Args:
      context: of the run.
      verifier: checks the theorems, and attempts at them.
      minif2f: statements of others, for which the model must be long enough, too.
    """
    config = context.config
    with context.timed("data"), context.task("Making theorems", 1) as progress:
        splits = make_splits(config.data)
        everything = [problem for split in splits.values() for problem in split]
        progress(1, f"{len(everything)} theorems")
    write_problems(everything, context.folder / "problems.jsonl")
    total = sum(len(problem.references) for problem in everything)
    with context.timed("lean"), context.task("Lean: references", total) as progress:
        check_problems(everything, verifier, progress)
    writer = ReferenceHint(base=CompilerFeedback(), plan=config.fd.plan)
    count = config.data.mistakes
    with context.timed("lean"), context.task("Lean: mistakes", count) as progress:
        informed = corrupted_rows(
            splits["sft"],
            verifier,
            writer,
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
    width, minif2f_width = (
        padded_width([len(ids) for ids in prompt_tokens(tokenizer, problems)], 8)
        for problems in (everything, minif2f)
    )
    teacher_width = width + config.rollout.feedback_tokens
    longest_prompt = max(teacher_width, minif2f_width)
    model = Model(
        config.model.decoder(
            vocab_size=len(tokenizer),
            positions=longest_prompt + config.rollout.max_new_tokens,
        ),
        context.mesh,
    )
    write_description(context.folder / "model", model.config, tokenizer)
    rewordings, seed = config.data.rewordings, config.seed
    return Materials(
        context=context,
        verifier=verifier,
        splits=splits,
        plain=reworded_rows(plain, copies=rewordings, seed=seed),
        informed=reworded_rows(informed, copies=rewordings, seed=seed),
        writer=writer,
        tokenizer=tokenizer,
        model=model,
        prompt_width=width,
        teacher_width=teacher_width,
        minif2f_width=minif2f_width,
    )
