"""What a step minimises: a model and a loss put together, one function each.

An objective is `(params, teacher, batch, normalizer) -> (loss, metrics)`, a sum over
the batch divided by `normalizer`, so that shards and microbatches add up.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdjax.losses import feedback_distillation_loss, grpo_loss, sft_loss
from fdjax.model import Model
from fdjax.ops import forward_kl, token_logprobs
from fdjax.records import Metrics
from fdjax.rollout import DistillationBatch, PolicyBatch, SupervisedBatch

__all__ = [
    "Objective",
    "distillation_logits",
    "fd_objective",
    "grpo_objective",
    "response_logits",
    "sft_objective",
]

Objective = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, Metrics]]


def response_logits(
    model: Model,
    params: Any,
    prompts: jax.Array,
    prompt_valid: jax.Array,
    responses: jax.Array,
    response_valid: jax.Array,
) -> jax.Array:
    """Logits [B, T, V] that predict each response token from all before it.

    The head runs on the T positions that predict the response, not on the prompt.
    """
    tokens = jnp.concatenate([prompts, responses], axis=1)
    valid = jnp.concatenate([prompt_valid, response_valid], axis=1)
    hidden = model.hidden(params, tokens, valid=valid)
    start = prompts.shape[1] - 1
    return model.head(params, hidden[:, start : start + responses.shape[1]])


def distillation_logits(
    model: Model, params: Any, teacher: Any, batch: DistillationBatch
) -> tuple[jax.Array, jax.Array]:
    """Student and teacher logits [B, T, V] on the same response tokens.

    Positions differ, because the teacher's prompt is longer; rows are aligned by y.
    """
    student = response_logits(
        model,
        params,
        batch.prompts,
        batch.prompt_valid,
        batch.responses,
        batch.response_valid,
    )
    teacher_logits = response_logits(
        model,
        teacher,
        batch.teacher_prompts,
        batch.teacher_prompt_valid,
        batch.responses,
        batch.response_valid,
    )
    return student, jax.lax.stop_gradient(teacher_logits)


def sft_objective(model: Model) -> Objective:
    """Cross-entropy on reference proofs."""

    def objective(
        params: Any, teacher: Any, batch: SupervisedBatch, normalizer: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        del teacher
        logits = response_logits(
            model,
            params,
            batch.prompts,
            batch.prompt_valid,
            batch.responses,
            batch.mask,
        )
        logprobs = token_logprobs(logits, batch.responses)
        return sft_loss(logprobs, mask=batch.mask, normalizer=normalizer)

    return objective


def grpo_objective(
    model: Model,
    *,
    clip_low: float,
    clip_high: float,
    temperature: float,
) -> Objective:
    """Clipped surrogate on sampled proofs (`losses.grpo_loss`)."""

    def objective(
        params: Any, teacher: Any, batch: PolicyBatch, normalizer: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        del teacher
        logits = response_logits(
            model,
            params,
            batch.prompts,
            batch.prompt_valid,
            batch.responses,
            batch.response_valid,
        )
        return grpo_loss(
            token_logprobs(logits, batch.responses, temperature=temperature),
            old_logprobs=batch.old_logprobs,
            advantages=batch.advantages,
            mask=batch.mask,
            normalizer=normalizer,
            clip_low=clip_low,
            clip_high=clip_high,
        )

    return objective


def fd_objective(
    model: Model,
    *,
    divergence: Callable[[jax.Array, jax.Array], jax.Array] = forward_kl,
    temperature: float = 1.0,
) -> Objective:
    """Divergence of student from feedback-reading teacher along the student's tokens.

    Args:
      model: of both; only the parameters differ.
      divergence: of `fdjax.ops`, `(student_logits, teacher_logits) -> [B, T]`.
      temperature: at which y was sampled; divides both logits.
    """

    def objective(
        params: Any, teacher: Any, batch: DistillationBatch, normalizer: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        student_logits, teacher_logits = distillation_logits(
            model, params, teacher, batch
        )
        return feedback_distillation_loss(
            student_logits,
            teacher_logits=teacher_logits,
            mask=batch.mask,
            normalizer=normalizer,
            divergence=divergence,
            temperature=temperature,
        )

    return objective
