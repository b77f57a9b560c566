"""The policy of a run before its weights are read: model, tokenizer, widths."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from jax.sharding import Mesh
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fdjax.checkpoint import open_source
from fdjax.checkpoint.description import stop_tokens
from fdjax.data.chat import prompt_tokens
from fdjax.data.packing import padded_width
from fdjax.errors import ConfigError
from fdjax.feedback import PolicyFeedback
from fdjax.model import Model
from fdjax.run.config import PolicyConfig, RunConfig
from fdjax.run.task import Task

__all__ = ["PolicyDescription", "described_policy", "prompt_width"]


@dataclass(frozen=True, kw_only=True)
class PolicyDescription:
    """A policy without its weights."""

    model: Model
    tokenizer: PreTrainedTokenizerFast
    folder: Path
    """Of config.json and tokenizer."""
    stop_tokens: tuple[int, ...]
    """Ids that end an answer (`Pretrained.stop_tokens`)."""


def described_policy(settings: PolicyConfig, mesh: Mesh) -> PolicyDescription:
    """The policy without its weights.

    Raises:
      CheckpointError: there is no such policy.
      ConfigError: none is named, or it is not of a family that the decoder has.
    """
    if not settings.source:
        raise ConfigError(
            "expected a policy to train, got none: give --policy, a folder in "
            "Hugging Face's format or a hub id"
        )
    found = open_source(settings.source, revision=settings.revision)
    config = replace(
        found.config,
        dtype=settings.dtype,
        remat=settings.remat,
        attention=settings.attention,
    )
    tokenizer = AutoTokenizer.from_pretrained(found.description)
    return PolicyDescription(
        model=Model(config, mesh),
        tokenizer=cast(PreTrainedTokenizerFast, tokenizer),
        folder=found.description,
        stop_tokens=stop_tokens(found.description),
    )


def prompt_width(
    config: RunConfig, task: Task, model: Model, tokenizer: PreTrainedTokenizerFast
) -> int:
    """Tokens of the student's prompts: as set, or as the longest problem needs.

    Raises:
      ConfigError: prompts, feedback and attempts are longer than the model can read.
    """
    attempts = config.attempts
    everything = [*task.problems, *task.evaluation]
    ids = prompt_tokens(tokenizer, everything, format=task.asking)
    width = attempts.prompt_tokens or padded_width([len(row) for row in ids], 8)
    longest = width + attempts.feedback_tokens + attempts.max_new_tokens
    positions = model.config.max_position_embeddings
    if longest > positions:
        raise ConfigError(
            f"expected prompts of {width} tokens, feedback of "
            f"{attempts.feedback_tokens} and attempts of {attempts.max_new_tokens} to "
            f"fit into the policy's {positions} positions, got {longest}: lower "
            "attempts.prompt_tokens, feedback_tokens or max_new_tokens"
        )
    if isinstance(task.writer, PolicyFeedback):
        review = task.writer.prompt_tokens + task.writer.max_new_tokens
        if review > positions:
            raise ConfigError(
                f"expected questions of {task.writer.prompt_tokens} tokens and reviews "
                f"of {task.writer.max_new_tokens} to fit into the policy's {positions} "
                f"positions, got {review}: lower feedback.prompt_tokens or "
                "feedback.max_new_tokens"
            )
    return width
