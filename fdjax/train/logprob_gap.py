"""How far the sampler's log-probabilities are from the trainer's."""

import logging
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp

from fdjax.model import Model
from fdjax.ops import Chunking, chunked_logprobs
from fdjax.records import Mean, Metrics
from fdjax.rollout import Rollout
from fdjax.sharding import batch_parts, shard_batch
from fdjax.train.forward import response_hidden

__all__ = ["LogprobGap"]

_log = logging.getLogger(__name__)

_ROWS = 8
"""Attempts of an iteration that are read again, rounded to as many for each device."""
_ALARM = {"float32": 1e-3, "bfloat16": 0.05}
"""Nats: a mean gap that rounding does not explain, by the type of the activations."""


class LogprobGap:
    """Reads some attempts of each iteration again, with the trainer's programs.

    Policy gradients divide by the sampler's probabilities and every loss is one on its
    samples. Where another program, layout or weight drew them, this tells.
    """

    def __init__(self, model: Model) -> None:
        """For the policies of one model."""
        self._model = model
        self._alarm = _ALARM[jnp.dtype(model.config.dtype).name]

    def measure(self, params: Any, rollout: Rollout) -> Metrics:
        """The gap on the first attempts, by the weights that sampled them.

        Metrics: rollout/logprob_gap (nats, mean over sampled tokens of |sampler -
        trainer|), rollout/logprob_gap_max (nats, the largest).
        """
        rows = self.rows(len(rollout.trajectories))
        responses = rollout.responses
        columns = jax.tree.map(
            lambda column: column[:rows], (*rollout.prompts, *responses[:4])
        )
        if self._model.mesh is not None:
            columns = shard_batch(columns, self._model.mesh)
        temperature = rollout.sampling.temperature if rollout.sampling else 1.0
        total, largest = jax.device_get(
            self._gap(params, *columns, temperature=temperature)
        )
        count = int(responses.mask[:rows].sum())
        mean = float(total) / max(count, 1)
        # A comparison with NaN is False.
        if not mean <= self._alarm:
            _log.warning(
                "expected the sampler's log-probabilities within %g nats of the "
                "trainer's on average, got %.4f, at most %.4f: weights or programs "
                "differ",
                *(self._alarm, mean, float(largest)),
            )
        return {
            "rollout/logprob_gap": Mean(float(total), count),
            "rollout/logprob_gap_max": Mean(float(largest), 1),
        }

    def rows(self, attempts: int) -> int:
        """How many of so many attempts are read."""
        parts = 1 if self._model.mesh is None else batch_parts(self._model.mesh)
        return max(1, min(_ROWS, attempts) // parts) * parts

    @cached_property
    def _gap(self) -> Any:
        return jax.jit(partial(_gap, self._model), static_argnames="temperature")


def _gap(
    model: Model,
    params: Any,
    prompts: Any,
    prompt_valid: Any,
    tokens: Any,
    valid: Any,
    mask: Any,
    sampled: Any,
    *,
    temperature: float,
) -> tuple[jax.Array, jax.Array]:
    """Sum and maximum of the differences."""
    hidden = response_hidden(model, params, prompts, prompt_valid, tokens, valid)
    logprobs, _ = chunked_logprobs(
        hidden,
        model.output_embeddings(params),
        tokens,
        mask=mask,
        temperature=temperature,
        chunking=Chunking(mesh=model.mesh),
    )
    gap = jnp.where(mask, jnp.abs(logprobs - sampled), 0.0)
    return gap.sum(), gap.max()
