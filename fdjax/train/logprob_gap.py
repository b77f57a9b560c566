"""Some attempts read again: the sampler against the trainer, and the marginal."""

import math
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
from fdjax.train.marginal import entropy_of, summed_distribution

__all__ = ["LogprobGap"]

_ROWS = 8
"""Attempts of an iteration that are read again, rounded to as many for each device."""


class LogprobGap:
    """Reads some attempts of each iteration again, with the trainer's programs.

    Policy gradients divide by the sampler's probabilities and every loss is one on its
    samples. Where another program, layout or weight drew them, this tells.
    """

    def __init__(self, model: Model) -> None:
        """For the policies of one model."""
        self._model = model

    def measure(self, params: Any, rollout: Rollout) -> Metrics:
        """Of the first attempts, by the weights that sampled them.

        Metrics: rollout/logprob_gap (nats, mean over sampled tokens of |sampler -
        trainer|; infinite where one is NaN), rollout/logprob_gap_max (nats, the
        largest), rollout/marginal_entropy (nats, of the mean distribution over these
        tokens).
        """
        rows = self.rows(len(rollout.trajectories))
        responses = rollout.responses
        columns = jax.tree.map(
            lambda column: column[:rows], (*rollout.prompts, *responses[:4])
        )
        mesh = self._model.mesh
        columns = (
            jax.device_put(columns) if mesh is None else shard_batch(columns, mesh)
        )
        temperature = rollout.sampling.temperature if rollout.sampling else 1.0
        measured = jax.device_get(
            self.program(params, *columns, temperature=temperature)
        )
        total, largest, entropy = map(float, measured)
        if math.isnan(total):
            # A row takes NaN for nothing to measure; no gap is larger than this one.
            total = largest = math.inf
        count = int(responses.mask[:rows].sum())
        return {
            "rollout/logprob_gap": Mean(total, count),
            "rollout/logprob_gap_max": Mean(largest, 1),
            "rollout/marginal_entropy": Mean(entropy, min(count, 1)),
        }

    def rows(self, attempts: int) -> int:
        """How many of so many attempts are read."""
        parts = 1 if self._model.mesh is None else batch_parts(self._model.mesh)
        return max(1, min(_ROWS, attempts) // parts) * parts

    @cached_property
    def program(self) -> Any:
        """Jitted `(params, prompts, valid, tokens, valid, mask, sampled)` to sums.

        It takes the `temperature` by name.
        """
        return jax.jit(partial(_read, self._model), static_argnames="temperature")


def _read(
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
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sum and maximum of the differences, and the marginal entropy."""
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
    marginal = summed_distribution(model, params, hidden, mask, temperature=temperature)
    return gap.sum(), gap.max(), entropy_of(marginal)
