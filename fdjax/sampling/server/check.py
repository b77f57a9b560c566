"""Whether a server's log-probabilities are those of the trainer's model."""

from functools import partial
from typing import Any

import jax
import numpy as np

from fdjax.model import Model
from fdjax.ops import token_logprobs
from fdjax.sampling.sampler import Sample
from fdjax.sharding import batch_parts

__all__ = ["PROBE_TOKENS", "mean_distance"]

PROBE_TOKENS = 32
"""Tokens that are sampled after the probe."""


def mean_distance(
    model: Model,
    params: Any,
    prompt: tuple[int, ...],
    sample: Sample,
    temperature: float,
) -> float:
    """Mean absolute difference from log-probabilities of `Model.apply`, nats a token.

    Args:
      model: the decoder.
      params: what the server should have sampled with.
      prompt: what it sampled after.
      sample: its tokens, with what it says of them.
      temperature: τ.
    """
    # Kernels cut a batch over the mesh: each part has the same row.
    rows = 1 if model.mesh is None else batch_parts(model.mesh)
    tokens = np.zeros((rows, len(prompt) + PROBE_TOKENS), np.int32)
    sequence = [*prompt, *sample.tokens]
    tokens[:, : len(sequence)] = sequence
    valid = np.arange(tokens.shape[1])[None].repeat(rows, axis=0) < len(sequence)
    placed = jax.device_put((tokens, valid))
    own = jax.device_get(_logprobs(model, temperature, params, *placed))
    own = own[0, len(prompt) - 1 : len(sequence) - 1]
    return float(np.abs(own - sample.logprobs).mean())


@partial(jax.jit, static_argnums=(0, 1))
def _logprobs(
    model: Model, temperature: float, params: Any, tokens: Any, valid: Any
) -> Any:
    """Of each token but the first."""
    logits = model.apply(params, tokens, valid=valid)[:, :-1]
    return token_logprobs(logits, tokens[:, 1:], temperature=temperature)
