"""What a policy does on problems held out: rewards, entropies, favourite tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, Key

from fdjax.data.tokenizer import token_texts
from fdjax.model import Model
from fdjax.ops import Chunking, chunked_sum, scale_logits
from fdjax.records import Problem
from fdjax.rollout import Pipeline, Rollout
from fdjax.sharding import batch_parts
from fdjax.train import response_hidden

__all__ = ["Probe", "probe"]

_ROWS = 16
"""Attempts in a pass of the model, rounded up to one for each device."""
_TOP = 10


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Measurements of one policy, all means over problems held out."""

    rewards: tuple[float | None, ...]
    """Mean reward of each problem; None where nothing was judged."""
    passed: float | None
    """Share of judged attempts that passed."""
    entropy: float
    """Policy entropy, nats per sampled token."""
    marginal_entropy: float
    """Entropy, nats, of the next-token distribution averaged over all sampled
    positions. Where a policy collapses onto few phrases it falls first."""
    top_tokens: tuple[tuple[str, float], ...]
    """The likeliest tokens of that average, and their probabilities."""
    length: float
    """Tokens of an attempt."""
    finished: float
    """Share of attempts that the policy ended itself."""

    @property
    def reward(self) -> float | None:
        """Mean over the problems with a reward."""
        known = [value for value in self.rewards if value is not None]
        return float(np.mean(known)) if known else None

    def to_json(self) -> Mapping[str, Any]:
        """As a row of a file."""
        return {"reward": self.reward, **asdict(self)}


def probe(
    pipeline: Pipeline,
    model: Model,
    params: Any,
    problems: Sequence[Problem],
    key: Key[Array, ""],
    *,
    samples: int,
    feedback: Sequence[str | None] | None = None,
    comment: bool = False,
) -> tuple[Probe, Rollout]:
    """Samples and judges attempts, and looks at the distributions behind them.

    Args:
      pipeline: samples and judges.
      model: the policy.
      params: its parameters, or a teacher's.
      problems: held out.
      key: typed PRNG key; equal keys draw equal samples.
      samples: attempts at each problem.
      feedback: text in the prompt of each problem, for a teacher.
      comment: whether feedback is written on the attempts.

    Returns:
      The measurements, and the attempts behind them.
    """
    rollout = pipeline.collect(
        params,
        problems,
        key,
        group_size=samples,
        feedback=feedback,
        comment=comment,
    )
    attempts = [each for each in rollout.trajectories if each.sampled]
    judged = [each for each in attempts if not each.judgement.missing]
    responses = rollout.responses
    marginal = _marginal(model, params, rollout, pipeline)
    top = np.argsort(-marginal)[:_TOP]
    positive = marginal[marginal > 0]
    return Probe(
        rewards=tuple(map(_mean_reward, rollout.groups)),
        passed=(
            sum(each.judgement.passed for each in judged) / len(judged)
            if judged
            else None
        ),
        entropy=float(responses.entropy.sum() / max(responses.mask.sum(), 1)),
        marginal_entropy=float(-(positive * np.log(positive)).sum()),
        top_tokens=tuple(
            zip(
                token_texts(pipeline.tokenizer, top),
                marginal[top].tolist(),
                strict=True,
            )
        ),
        length=float(responses.mask.sum() / max(len(attempts), 1)),
        finished=sum(each.finished for each in attempts) / max(len(attempts), 1),
    ), rollout


def _mean_reward(group: Sequence[Any]) -> float | None:
    known = [
        each.judgement.reward for each in group if each.judgement.reward is not None
    ]
    return float(np.mean(known)) if known else None


def _marginal(
    model: Model, params: Any, rollout: Rollout, pipeline: Pipeline
) -> Float32[np.ndarray, " V"]:
    """The next-token distribution, averaged over all sampled positions."""
    temperature = rollout.sampling.temperature if rollout.sampling else 1.0
    (prompts, valid), responses = rollout.prompts, rollout.responses
    parts = 1 if model.mesh is None else batch_parts(model.mesh)
    rows = -(-_ROWS // parts) * parts
    total, count = 0.0, 0
    for start in range(0, len(prompts), rows):
        columns = [
            _filled(column[start : start + rows], rows)
            for column in (prompts, valid, responses.tokens, responses.mask)
        ]
        total = total + np.asarray(
            _summed(model, params, *columns, temperature=temperature), np.float64
        )
        count += int(responses.mask[start : start + rows].sum())
    return np.asarray(total / max(count, 1), np.float32)


def _filled(column: np.ndarray, rows: int) -> np.ndarray:
    """The column with rows of zeros, masked ones, up to a number of rows."""
    missing = rows - len(column)
    return np.pad(column, ((0, missing), (0, 0)))


@partial(jax.jit, static_argnames=("model", "temperature"))
def _summed(
    model: Model,
    params: Any,
    prompts: Int32[Array, "B S"],
    valid: Bool[Array, "B S"],
    tokens: Int32[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    temperature: float,
) -> Float32[Array, " V"]:
    """Sum over sampled positions of the next-token distribution."""

    def chunk(logits: Array, rows: Any, shared: Any) -> tuple[Array, Array]:
        del shared
        likely = jax.nn.softmax(scale_logits(logits, temperature))
        summed = jnp.where(rows["mask"][:, None], likely, 0).sum(axis=0)
        return jnp.zeros((), jnp.float32), summed

    hidden = response_hidden(model, params, prompts, valid, tokens, mask)
    _, summed = chunked_sum(
        chunk,
        hidden,
        model.output_embeddings(params),
        mask=mask,
        rows={},
        chunking=Chunking(mesh=model.mesh),
    )
    return summed
