"""What a step minimises: a model and a loss put together, one function each.

An objective is `(params, teacher, batch, normalizer) -> (loss, metrics)`, a sum over
the batch divided by `normalizer`, so that shards and microbatches add up.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fdjax.losses import (
    feedback_distillation_loss_from_hidden,
    grpo_loss,
    sft_loss,
    token_loss_from_hidden,
)
from fdjax.losses.grpo import CLIP_HIGH, CLIP_LOW
from fdjax.model import Model
from fdjax.ops import TEMPERATURE, Chunking, Divergence, forward_kl
from fdjax.ranges import require
from fdjax.records import Metrics
from fdjax.rollout import DistillationBatch, PolicyBatch, SupervisedBatch

__all__ = [
    "Objective",
    "distillation_hidden",
    "fd_objective",
    "grpo_objective",
    "response_hidden",
    "sft_objective",
]

Objective = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, Metrics]]


def response_hidden(
    model: Model,
    params: Any,
    prompts: jax.Array,
    prompt_valid: jax.Array,
    responses: jax.Array,
    response_valid: jax.Array,
) -> jax.Array:
    """Last hidden states [B, T, D] that predict each response token from all before.

    Of the prompt only its last position is among them.
    """
    tokens = jnp.concatenate([prompts, responses], axis=1)
    valid = jnp.concatenate([prompt_valid, response_valid], axis=1)
    hidden = model.hidden(params, tokens, valid=valid)
    start = prompts.shape[1] - 1
    return hidden[:, start : start + responses.shape[1]]


def distillation_hidden(
    model: Model, params: Any, teacher: Any, batch: DistillationBatch
) -> tuple[jax.Array, jax.Array]:
    """Student's and teacher's last hidden states [B, T, D] on the same response tokens.

    Positions differ, because the teacher's prompt is longer; rows are aligned by y.
    """
    student = response_hidden(
        model,
        params,
        batch.prompts,
        batch.prompt_valid,
        batch.responses,
        batch.response_valid,
    )
    informed = response_hidden(
        model,
        teacher,
        batch.teacher_prompts,
        batch.teacher_prompt_valid,
        batch.responses,
        batch.response_valid,
    )
    return student, jax.lax.stop_gradient(informed)


def sft_objective(model: Model) -> Objective:
    """Cross-entropy on reference proofs."""

    def objective(
        params: Any, teacher: Any, batch: SupervisedBatch, normalizer: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        del teacher
        hidden = response_hidden(
            model,
            params,
            batch.prompts,
            batch.prompt_valid,
            batch.responses,
            batch.mask,
        )
        return token_loss_from_hidden(
            sft_loss,
            hidden,
            model.output_embeddings(params),
            batch.responses,
            mask=batch.mask,
            normalizer=normalizer,
            chunking=Chunking(mesh=model.mesh),
        )

    return objective


def grpo_objective(
    model: Model,
    *,
    clip_low: float,
    clip_high: float,
    temperature: float,
) -> Objective:
    """Clipped surrogate on sampled proofs (`losses.grpo_loss`).

    Raises:
      ConfigError: a clip range or the temperature is impossible.
    """
    require("clip_low", clip_low, CLIP_LOW)
    require("clip_high", clip_high, CLIP_HIGH)
    require("temperature", temperature, TEMPERATURE)

    def objective(
        params: Any, teacher: Any, batch: PolicyBatch, normalizer: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        del teacher
        hidden = response_hidden(
            model,
            params,
            batch.prompts,
            batch.prompt_valid,
            batch.responses,
            batch.response_valid,
        )
        return token_loss_from_hidden(
            partial(grpo_loss, clip_low=clip_low, clip_high=clip_high),
            hidden,
            model.output_embeddings(params),
            batch.responses,
            mask=batch.mask,
            normalizer=normalizer,
            temperature=temperature,
            chunking=Chunking(mesh=model.mesh),
            old_logprobs=batch.old_logprobs,
            advantages=batch.advantages,
        )

    return objective


def fd_objective(
    model: Model,
    *,
    divergence: Divergence = forward_kl,
    temperature: float = 1.0,
) -> Objective:
    """Divergence of student from feedback-reading teacher along the student's tokens.

    Args:
      model: of both; only the parameters differ.
      divergence: of `fdjax.ops`, `(student_logits, teacher_logits) -> [..]`.
      temperature: at which y was sampled; divides both logits.

    Raises:
      ConfigError: the temperature is not positive.
    """
    require("temperature", temperature, TEMPERATURE)

    def objective(
        params: Any, teacher: Any, batch: DistillationBatch, normalizer: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        student, informed = distillation_hidden(model, params, teacher, batch)
        return feedback_distillation_loss_from_hidden(
            student,
            model.output_embeddings(params),
            teacher_hidden=informed,
            teacher_head=model.output_embeddings(teacher),
            mask=batch.mask,
            normalizer=normalizer,
            divergence=divergence,
            temperature=temperature,
            chunking=Chunking(mesh=model.mesh),
        )

    return objective
