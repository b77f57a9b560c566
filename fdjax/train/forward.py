"""Forward passes of student and teacher over the same response tokens."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from fdjax.model import Model
from fdjax.rollout.arrays import Batch
from fdjax.train.terms.term import Reading, given

__all__ = ["response_hidden", "teacher_hidden"]


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


def teacher_hidden(
    model: Model, teacher: Any, batch: Batch, reading: Reading
) -> Float[Array, "B T D"]:
    """The teacher's last hidden states on the response tokens; no gradient.

    Positions differ from the student's, because the teacher's prompt is longer; rows
    are aligned by y.

    Raises:
      ConfigError: the batch has no prompts for this reading.
    """
    match reading:
        case "feedback":
            read = given(batch.feedback, "feedback", "the teacher")
            prompts, valid = read.prompts, read.valid
        case "wrong_feedback":
            read = given(batch.wrong_feedback, "wrong_feedback", "the teacher")
            prompts, valid = read.prompts, read.valid
        case "nothing":
            prompts, valid = batch.prompts, batch.prompt_valid
    return jax.lax.stop_gradient(
        response_hidden(
            model, teacher, prompts, valid, batch.responses, batch.response_valid
        )
    )
