"""What a step minimises: a model and a loss put together, one objective each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

from fdjax.errors import ConfigError
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


@dataclass(frozen=True)
class Objective:
    """A loss, and what it needs of the state."""

    loss: Callable[
        [Any, Any, Any, Float[Array, ""]], tuple[Float32[Array, ""], Metrics]
    ]
    """`(params, teacher, batch, normalizer) -> (loss, metrics)`, a sum over the batch
    divided by `normalizer`, so that shards and microbatches add up."""
    reads_teacher: bool = False
    """Whether the loss reads the teacher; without, `teacher` is None."""

    def __call__(
        self, params: Any, teacher: Any, batch: Any, normalizer: Float[Array, ""]
    ) -> tuple[Float32[Array, ""], Metrics]:
        """The loss and its metrics."""
        return self.loss(params, teacher, batch, normalizer)


def response_hidden(
    model: Model,
    params: Any,
    prompts: Int32[Array, "B S"],
    prompt_valid: Bool[Array, "B S"],
    responses: Int32[Array, "B T"],
    response_valid: Bool[Array, "B T"],
) -> Float[Array, "B T D"]:
    """Last hidden states that predict each response token from all before.

    Of the prompt only its last position is among them.
    """
    tokens = jnp.concatenate([prompts, responses], axis=1)
    valid = jnp.concatenate([prompt_valid, response_valid], axis=1)
    hidden = model.hidden(params, tokens, valid=valid)
    start = prompts.shape[1] - 1
    return hidden[:, start : start + responses.shape[1]]


def distillation_hidden(
    model: Model, params: Any, teacher: Any, batch: DistillationBatch
) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
    """Student's and teacher's last hidden states on the same response tokens.

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

    def loss(
        params: Any, teacher: Any, batch: SupervisedBatch, normalizer: Float[Array, ""]
    ) -> tuple[Float32[Array, ""], Metrics]:
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

    return Objective(loss)


def grpo_objective(
    model: Model,
    *,
    clip_low: float,
    clip_high: float,
    temperature: float,
) -> Objective:
    """Clipped surrogate on sampled proofs (`losses.grpo_loss`).

    Args:
      model: the policy.
      clip_low: ε_low of the loss.
      clip_high: ε_high.
      temperature: at which the proofs were sampled; divides the logits. At another one
        new and old log-probabilities would be of two distributions, so that a batch
        sampled otherwise is a ConfigError when the step is traced.

    Raises:
      ConfigError: a clip range or the temperature is impossible.
    """
    require("clip_low", clip_low, CLIP_LOW)
    require("clip_high", clip_high, CLIP_HIGH)
    require("temperature", temperature, TEMPERATURE)

    def loss(
        params: Any, teacher: Any, batch: PolicyBatch, normalizer: Float[Array, ""]
    ) -> tuple[Float32[Array, ""], Metrics]:
        del teacher
        _require_temperature(batch, temperature)
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

    return Objective(loss)


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
      temperature: at which y was sampled; divides both logits. A batch sampled at
        another one is a ConfigError when the step is traced.

    Raises:
      ConfigError: the temperature is not positive.
    """
    require("temperature", temperature, TEMPERATURE)

    def loss(
        params: Any,
        teacher: Any,
        batch: DistillationBatch,
        normalizer: Float[Array, ""],
    ) -> tuple[Float32[Array, ""], Metrics]:
        _require_temperature(batch, temperature)
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

    return Objective(loss, reads_teacher=True)


def _require_temperature(
    batch: PolicyBatch | DistillationBatch, temperature: float
) -> None:
    """One temperature for sampler and loss, wherever the batch says its own."""
    sampling = batch.sampling
    if sampling is not None and sampling.temperature != temperature:
        raise ConfigError(
            f"expected the objective at the temperature of the sampler, "
            f"{sampling.temperature}, got {temperature}: give both the same"
        )
