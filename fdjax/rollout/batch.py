"""Rollouts and reference proofs to the arrays that a train step takes."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from fdjax.data.chat import prompt_tokens, proof_tokens
from fdjax.data.packing import pad_left, pad_right
from fdjax.data.tokenizer import pad_token, token_texts
from fdjax.feedback import Feedback
from fdjax.records import Mean, Metrics, Problem
from fdjax.rollout.engine import Rollout
from fdjax.sampling import SamplingConfig

__all__ = [
    "DistillationBatch",
    "PolicyBatch",
    "SupervisedBatch",
    "distillation_batch",
    "fit_feedback",
    "policy_batch",
    "supervised_batch",
]


Leaf = Any
"""A NumPy array on the host, the JAX array made of it inside a train step."""


class SupervisedBatch(NamedTuple):
    """Reference proofs to imitate."""

    prompts: Leaf
    """[B, S] int32, left-padded."""
    prompt_valid: Leaf
    """[B, S] bool."""
    responses: Leaf
    """[B, T] int32, right-padded."""
    mask: Leaf
    """[B, T] bool, scored tokens."""


class PolicyBatch(NamedTuple):
    """Sampled proofs with advantages, for GRPO."""

    prompts: Leaf
    prompt_valid: Leaf
    responses: Leaf
    response_valid: Leaf
    """[B, T] bool, sampled tokens."""
    mask: Leaf
    """[B, T] bool, scored tokens: sampled, and the reward is known."""
    old_logprobs: Leaf
    """[B, T] float32, nats: `Completions.logprobs`, of the policy that sampled, not of
    what top-k and top-p left of it."""
    advantages: Leaf
    """[B] float32."""
    sampling: SamplingConfig | None = None
    """How the tokens were drawn; objectives hold their temperature against it. None in
    a batch of another origin."""


class DistillationBatch(NamedTuple):
    """Sampled proofs with the prompt that the teacher reads, for FD."""

    prompts: Leaf
    prompt_valid: Leaf
    responses: Leaf
    response_valid: Leaf
    teacher_prompts: Leaf
    """[B, S'] int32, left-padded: the same question after the feedback."""
    teacher_prompt_valid: Leaf
    mask: Leaf
    """[B, T] bool, scored tokens: sampled, with feedback, within the scored part."""
    sampling: SamplingConfig | None = None
    """As in `PolicyBatch`."""


def supervised_batch(
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[tuple[Problem, str | None, str]],
    *,
    prompt_width: int,
    response_width: int,
) -> SupervisedBatch:
    """Arrays for (problem, feedback shown in the prompt, proof to write) rows."""
    problems, feedback, proofs = zip(*rows, strict=True)
    pad = pad_token(tokenizer)
    prompts, valid = pad_left(
        prompt_tokens(tokenizer, problems, feedback), width=prompt_width, pad=pad
    )
    responses, mask = pad_right(
        proof_tokens(tokenizer, proofs), width=response_width, pad=pad
    )
    return SupervisedBatch(prompts, valid, responses, mask)


def policy_batch(rollout: Rollout, advantages: np.ndarray) -> PolicyBatch:
    """Arrays for GRPO; samples without a verdict are not scored."""
    sampled = rollout.completions
    return PolicyBatch(
        prompts=rollout.prompts,
        prompt_valid=rollout.prompt_valid,
        responses=sampled.tokens,
        response_valid=sampled.mask,
        mask=sampled.mask & rollout.known[:, None],
        old_logprobs=sampled.logprobs,
        advantages=np.asarray(advantages, np.float32).reshape(-1),
        sampling=sampled.sampling,
    )


def distillation_batch(
    rollout: Rollout,
    tokenizer: PreTrainedTokenizerFast,
    *,
    teacher_width: int,
    score: Literal["all", "to_divergence"] = "all",
) -> tuple[DistillationBatch, Metrics]:
    """Arrays for FD; samples without feedback are not scored.

    Feedback longer than the teacher's prompt allows loses its last parts, counted in
    `feedback/shortened`.

    Args:
      rollout: attempts with feedback.
      tokenizer: of the policy.
      teacher_width: S', tokens of the teacher's prompt.
      score: which tokens of a failed attempt carry a loss: all, or those up to the
        first that the feedback would change (beyond it the teacher reads a proof that
        its feedback speaks against).

    Metrics: feedback/available, feedback/shortened (shares of the samples).
    """
    notes, shortened = fit_feedback(
        tokenizer, rollout.problems, rollout.feedback, width=teacher_width
    )
    available = np.array([f.available for f in rollout.feedback])
    pad = pad_token(tokenizer)
    teacher_prompts, teacher_valid = pad_left(
        prompt_tokens(tokenizer, rollout.problems, notes), width=teacher_width, pad=pad
    )
    sampled = rollout.completions
    mask = sampled.mask & available[:, None]
    if score == "to_divergence":
        for row, feedback in enumerate(rollout.feedback):
            if feedback.offset is not None:
                tokens = np.asarray(sampled.tokens[row])
                mask[row] &= _begins_by(tokenizer, tokens, feedback.offset)
    batch = DistillationBatch(
        prompts=rollout.prompts,
        prompt_valid=rollout.prompt_valid,
        responses=sampled.tokens,
        response_valid=sampled.mask,
        teacher_prompts=teacher_prompts,
        teacher_prompt_valid=teacher_valid,
        mask=mask,
        sampling=sampled.sampling,
    )
    size = len(available)
    return batch, {
        "feedback/available": Mean(float(available.sum()), size),
        "feedback/shortened": Mean(float(shortened), size),
    }


def fit_feedback(
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[Problem],
    feedback: Sequence[Feedback],
    *,
    width: int,
) -> tuple[list[str | None], int]:
    """Feedback texts that fit into prompts of `width` tokens, and how many were cut.

    Feedback that is too long loses its last parts, the least important ones.
    """
    keep = [len(note.parts) for note in feedback]
    while True:
        notes = [
            "\n".join(note.parts[:count]) if count else None
            for note, count in zip(feedback, keep, strict=True)
        ]
        lengths = [len(ids) for ids in prompt_tokens(tokenizer, problems, notes)]
        long = [i for i, length in enumerate(lengths) if length > width and keep[i]]
        if not long:
            cut = sum(k < len(f.parts) for k, f in zip(keep, feedback, strict=True))
            return notes, cut
        for index in long:
            keep[index] -= 1


def _begins_by(
    tokenizer: PreTrainedTokenizerFast, tokens: np.ndarray, offset: int
) -> np.ndarray:
    """True for tokens that begin at character `offset` or before it [T]."""
    lengths = np.array([len(text) for text in token_texts(tokenizer, tokens)])
    return np.cumsum(lengths) - lengths <= offset
