"""Rollouts and reference proofs to the arrays that a train step takes."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32
from transformers import PreTrainedTokenizerFast

from fdjax.data.chat import prompt_tokens, proof_tokens
from fdjax.data.packing import pad_left, pad_right
from fdjax.data.tokenizer import pad_token, token_texts
from fdjax.errors import DataError
from fdjax.feedback import Feedback
from fdjax.ranges import Among, require
from fdjax.records import Mean, Metrics, Problem
from fdjax.rollout.trajectory import Rollout
from fdjax.sampling import SamplingConfig

__all__ = [
    "SCORE",
    "DistillationBatch",
    "PolicyBatch",
    "Score",
    "SupervisedBatch",
    "distillation_batch",
    "fit_feedback",
    "policy_batch",
    "supervised_batch",
]


Score = Literal["all", "to_divergence"]
"""Which tokens of a failed attempt carry a loss."""

SCORE = Among(*get_args(Score))

Leaf = Any
"""A NumPy array on the host, the JAX array made of it inside a train step."""


class SupervisedBatch(NamedTuple):
    """Reference proofs to imitate."""

    prompts: Int32[Leaf, "B S"]
    """Left-padded."""
    prompt_valid: Bool[Leaf, "B S"]
    """False on padding."""
    responses: Int32[Leaf, "B T"]
    """Right-padded."""
    mask: Bool[Leaf, "B T"]
    """Scored tokens."""


class PolicyBatch(NamedTuple):
    """Sampled proofs with advantages, for GRPO."""

    prompts: Int32[Leaf, "B S"]
    prompt_valid: Bool[Leaf, "B S"]
    responses: Int32[Leaf, "B T"]
    response_valid: Bool[Leaf, "B T"]
    """Sampled tokens."""
    mask: Bool[Leaf, "B T"]
    """Scored tokens: sampled, and the reward is known."""
    old_logprobs: Float32[Leaf, "B T"]
    """Nats: `Completions.logprobs`, of the policy that sampled, not of what top-k and
    top-p left of it."""
    advantages: Float32[Leaf, " B"]
    """Of each attempt; 0 where the reward is not known."""
    sampling: SamplingConfig | None = None
    """How the tokens were drawn; objectives hold their temperature against it. None in
    a batch of another origin."""


class DistillationBatch(NamedTuple):
    """Sampled proofs with the prompt that the teacher reads, for FD."""

    prompts: Int32[Leaf, "B S"]
    prompt_valid: Bool[Leaf, "B S"]
    responses: Int32[Leaf, "B T"]
    response_valid: Bool[Leaf, "B T"]
    teacher_prompts: Int32[Leaf, "B S_teacher"]
    """Left-padded: the same question after the feedback."""
    teacher_prompt_valid: Bool[Leaf, "B S_teacher"]
    mask: Bool[Leaf, "B T"]
    """Scored tokens: sampled, with feedback, within the scored part."""
    sampling: SamplingConfig | None = None
    """As in `PolicyBatch`."""


def supervised_batch(
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[tuple[Problem, str | None, str]],
    *,
    prompt_width: int,
    response_width: int,
) -> tuple[SupervisedBatch, Metrics]:
    """Arrays for (problem, feedback shown in the prompt, proof to write) rows.

    Rows whose prompt or proof is too long are not scored.

    Metrics: sft/overlong (share of the rows).
    """
    if not rows:
        raise DataError("supervised_batch: expected rows, got none")
    problems, feedback, proofs = zip(*rows, strict=True)
    prompts = prompt_tokens(tokenizer, problems, feedback)
    responses = proof_tokens(tokenizer, proofs)
    fits = np.array(
        [
            len(prompt) <= prompt_width and len(response) <= response_width
            for prompt, response in zip(prompts, responses, strict=True)
        ]
    )
    pad = pad_token(tokenizer)
    prompts, valid = pad_left(
        [ids[-prompt_width:] for ids in prompts], width=prompt_width, pad=pad
    )
    responses, mask = pad_right(
        [ids[:response_width] for ids in responses], width=response_width, pad=pad
    )
    batch = SupervisedBatch(prompts, valid, responses, mask & fits[:, None])
    return batch, {"sft/overlong": Mean(float((~fits).sum()), len(fits))}


def policy_batch(
    rollout: Rollout, advantages: Float[np.ndarray, "*groups"]
) -> PolicyBatch:
    """Arrays for GRPO; samples without a verdict are not scored.

    Raises:
      DataError: `advantages` are not one for each attempt, or not finite where the
        reward is known.
    """
    values = np.asarray(advantages, np.float32).reshape(-1)
    if values.shape != rollout.known.shape:
        raise DataError(
            f"policy_batch: expected advantages for {len(rollout.known)} attempts, got "
            f"{len(values)}"
        )
    damaged = int((~np.isfinite(values[rollout.known])).sum())
    if damaged:
        raise DataError(
            "policy_batch: expected finite advantages where the reward is known, got "
            f"{damaged} that are not"
        )
    prompts, prompt_valid = rollout.prompts
    responses = rollout.responses
    return PolicyBatch(
        prompts=prompts,
        prompt_valid=prompt_valid,
        responses=responses.tokens,
        response_valid=responses.mask,
        mask=responses.mask & rollout.known[:, None],
        old_logprobs=responses.logprobs,
        advantages=values,
        sampling=rollout.sampling,
    )


def distillation_batch(
    rollout: Rollout,
    tokenizer: PreTrainedTokenizerFast,
    *,
    teacher_width: int,
    score: Score = "all",
) -> tuple[DistillationBatch, Metrics]:
    """Arrays for FD; samples without feedback are not scored.

    Feedback longer than the teacher's prompt allows loses its last parts, counted in
    `feedback/shortened`. Where nothing of it fits, the teacher would read nothing that
    the student does not: the sample is not scored either, counted in
    `feedback/dropped`.

    Args:
      rollout: attempts with feedback.
      tokenizer: of the policy.
      teacher_width: S_teacher, tokens of the teacher's prompt.
      score: which tokens of a failed attempt carry a loss: all, or those up to the
        first that the feedback would change (beyond it the teacher reads a proof that
        its feedback speaks against).

    Raises:
      ConfigError: there is no such `score`.

    Metrics: feedback/available (the teacher reads some), feedback/shortened,
    feedback/dropped (shares of the samples).
    """
    require("score", score, SCORE)
    problems = [each.problem for each in rollout.trajectories]
    feedback = [each.feedback for each in rollout.trajectories]
    notes = fit_feedback(tokenizer, problems, feedback, width=teacher_width)
    read = np.array([note is not None for note in notes])
    teacher_prompts, teacher_valid = pad_left(
        # Only a question that nobody scores is too long.
        [ids[-teacher_width:] for ids in prompt_tokens(tokenizer, problems, notes)],
        width=teacher_width,
        pad=pad_token(tokenizer),
    )
    prompts, prompt_valid = rollout.prompts
    responses = rollout.responses
    mask = responses.mask & read[:, None]
    if score == "to_divergence":
        for row, each in enumerate(rollout.trajectories):
            if each.feedback.offset is not None:
                mask[row, responses.mask[row]] &= _begins_by(
                    tokenizer,
                    each.response.tokens,
                    each.judgement.start + each.feedback.offset,
                )
    batch = DistillationBatch(
        prompts=prompts,
        prompt_valid=prompt_valid,
        responses=responses.tokens,
        response_valid=responses.mask,
        teacher_prompts=teacher_prompts,
        teacher_prompt_valid=teacher_valid,
        mask=mask,
        sampling=rollout.sampling,
    )
    size = len(notes)
    shortened = sum(
        note is not None and note != whole.text
        for note, whole in zip(notes, feedback, strict=True)
    )
    dropped = sum(note.available for note in feedback) - int(read.sum())
    return batch, {
        "feedback/available": Mean(float(read.sum()), size),
        "feedback/shortened": Mean(float(shortened), size),
        "feedback/dropped": Mean(float(dropped), size),
    }


def fit_feedback(
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[Problem],
    feedback: Sequence[Feedback],
    *,
    width: int,
) -> list[str | None]:
    """What of each feedback fits into a prompt of `width` tokens; None for nothing.

    Feedback that is too long loses its last parts, the least important ones.
    """
    parts = [note.parts if note.available else () for note in feedback]
    rows = list(range(len(parts)))
    while rows := [row for row in rows if parts[row]]:
        prompts = prompt_tokens(
            tokenizer,
            [problems[row] for row in rows],
            ["\n".join(parts[row]) for row in rows],
        )
        rows = [row for row, ids in zip(rows, prompts, strict=True) if len(ids) > width]
        for row in rows:
            parts[row] = parts[row][:-1]
    texts = ["\n".join(kept) for kept in parts]
    return [text if text.strip() else None for text in texts]


def _begins_by(
    tokenizer: PreTrainedTokenizerFast, tokens: Int[np.ndarray, " T"], offset: int
) -> Bool[np.ndarray, " T"]:
    """True for tokens that begin at character `offset` or before it."""
    lengths = np.array([len(text) for text in token_texts(tokenizer, tokens)])
    return np.cumsum(lengths) - lengths <= offset
