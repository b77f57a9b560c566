"""What a policy does on problems held out: rewards, entropies, favourite tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float32, Float64, Int32, Key

from fdjax.data.tokenizer import token_texts
from fdjax.errors import DataError
from fdjax.eval import Estimate, distinct_names, mean_estimate, pass_at_k
from fdjax.model import Model
from fdjax.records import Problem
from fdjax.rollout import Pipeline, Rollout, Trajectory
from fdjax.sharding import batch_parts, on_host, shard_batch
from fdjax.train import response_hidden, summed_distribution

__all__ = ["Probe", "probe"]

_ROWS = 16
"""Attempts in a pass of the model, rounded up to one for each device."""
_TOP = 10
_EXAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Measurements of one policy, all means over problems held out."""

    problems: tuple[str, ...]
    """Their labels; a teacher's once for each attempt that it read feedback on."""
    rewards: tuple[float | None, ...]
    """Mean reward of each problem; None where nothing was judged."""
    passed: float | None
    """Share of judged attempts that passed."""
    pass_at_k: Mapping[str, Estimate | None]
    """k to pass@k, mean over the problems with as many judged attempts; its interval is
    over these. None where no problem has as many."""
    entropy: float | None
    """Policy entropy, nats per sampled token; None where no sample says it."""
    entropies: tuple[float | None, ...]
    """The same of each problem's attempts; None where nothing was sampled."""
    marginal_entropy: float
    """Entropy, nats, of the next-token distribution averaged over all sampled
    positions. Where a policy collapses onto few phrases it falls first."""
    top_tokens: tuple[tuple[str, float], ...]
    """The likeliest tokens of that average, and their probabilities."""
    length: float
    """Tokens of an attempt."""
    finished: float
    """Share of attempts that the policy ended itself."""
    examples: Mapping[str, str]
    """Label of a problem to the first attempt at it, of the first eight problems."""

    @property
    def reward(self) -> float | None:
        """Mean over the problems with a reward."""
        known = [value for value in self.rewards if value is not None]
        return float(np.mean(known)) if known else None

    def to_json(self) -> Mapping[str, Any]:
        """As a row of a file."""
        intervals = {
            k: estimate and estimate._asdict() for k, estimate in self.pass_at_k.items()
        }
        return {"reward": self.reward, **asdict(self), "pass_at_k": intervals}


def probe(
    pipeline: Pipeline,
    model: Model,
    params: Any,
    problems: Sequence[Problem],
    key: Key[Array, ""],
    *,
    samples: int,
    problems_per_batch: int,
    ks: Sequence[int] = (1,),
    feedback: Sequence[str | None] | None = None,
    comment: bool = False,
    version: int = 0,
    number: int | None = None,
    labels: Mapping[Problem, str] | None = None,
) -> tuple[Probe, list[Trajectory]]:
    """Samples and judges attempts, and looks at the distributions behind them.

    Args:
      pipeline: samples and judges.
      model: the policy.
      params: its parameters, or a teacher's.
      problems: held out.
      key: typed PRNG key; equal keys draw equal samples.
      samples: attempts at each problem.
      problems_per_batch: problems sampled together.
      ks: of pass@k.
      feedback: text in the prompt of each problem, for a teacher.
      comment: whether feedback is written on the attempts.
      version: of the parameters, in recordings of what the policy says.
      number: of the probe in the pipeline's phase, for its journal.
      labels: of these problems, perhaps among others; `eval.distinct_names` by default.

    Returns:
      The measurements, and the attempts behind them.

    Raises:
      DataError: there are no problems.
    """
    if not problems:
        raise DataError("probe: expected problems to measure on, got none")
    if labels is None:
        distinct = list(dict.fromkeys(problems))
        labels = dict(zip(distinct, distinct_names(distinct), strict=True))
    attempts: list[Trajectory] = []
    marginal, tokens = np.zeros(model.config.vocab_size), 0
    notes = feedback or [None] * len(problems)
    for start in range(0, len(problems), problems_per_batch):
        batch = slice(start, start + problems_per_batch)
        rollout = pipeline.collect(
            params,
            problems[batch],
            jax.random.fold_in(key, start),
            group_size=samples,
            feedback=notes[batch],
            comment=comment,
            version=version,
            number=number,
        )
        attempts += rollout.trajectories
        marginal += _summed_marginal(model, params, rollout)
        tokens += int(rollout.responses.mask.sum())
    sampled = [each for each in attempts if each.sampled]
    judged = [each for each in sampled if not each.judgement.missing]
    marginal = marginal / max(tokens, 1)
    top = np.argsort(-marginal)[:_TOP]
    positive = marginal[marginal > 0]
    groups = [
        attempts[start : start + samples] for start in range(0, len(attempts), samples)
    ]
    return Probe(
        problems=tuple(labels[problem] for problem in problems),
        rewards=tuple(map(_mean_reward, groups)),
        passed=(
            sum(each.judgement.passed for each in judged) / len(judged)
            if judged
            else None
        ),
        pass_at_k=_pass_at_k(attempts, samples, ks),
        entropy=_mean_entropy(attempts),
        entropies=tuple(map(_mean_entropy, groups)),
        marginal_entropy=float(-(positive * np.log(positive)).sum()),
        top_tokens=tuple(
            zip(
                token_texts(pipeline.tokenizer, top),
                marginal[top].tolist(),
                strict=True,
            )
        ),
        length=tokens / max(len(sampled), 1),
        finished=sum(each.episode.finished for each in sampled) / max(len(sampled), 1),
        examples=_examples(attempts, labels),
    ), attempts


def _pass_at_k(
    attempts: Sequence[Trajectory], samples: int, ks: Sequence[int]
) -> dict[str, Estimate | None]:
    judgements = [each.judgement for each in attempts]
    passed, judged = (
        np.array(column).reshape(-1, samples).sum(axis=1)
        for column in (
            [each.passed for each in judgements],
            [not each.missing for each in judgements],
        )
    )
    return {str(k): mean_estimate(pass_at_k(passed, judged, k)) for k in ks}


def _examples(
    attempts: Sequence[Trajectory], labels: Mapping[Problem, str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in attempts:
        if len(found) < _EXAMPLES:
            found.setdefault(labels[each.problem], each.text)
    return found


def _mean_entropy(attempts: Sequence[Trajectory]) -> float | None:
    """Nats per sampled token."""
    of_tokens = [each.row.entropy[each.row.mask] for each in attempts]
    every = np.concatenate([np.zeros(0), *of_tokens])
    every = every[~np.isnan(every)]
    return float(every.mean(dtype=np.float64)) if every.size else None


def _mean_reward(group: Sequence[Any]) -> float | None:
    known = [
        each.judgement.reward for each in group if each.judgement.reward is not None
    ]
    return float(np.mean(known)) if known else None


def _summed_marginal(
    model: Model, params: Any, rollout: Rollout
) -> Float64[np.ndarray, " V"]:
    """Sum of the next-token distributions at the sampled positions."""
    temperature = rollout.sampling.temperature if rollout.sampling else 1.0
    (prompts, valid), responses = rollout.prompts, rollout.responses
    parts = 1 if model.mesh is None else batch_parts(model.mesh)
    rows = -(-_ROWS // parts) * parts
    total, mesh = np.zeros(model.config.vocab_size), model.mesh
    for start in range(0, len(prompts), rows):
        columns = [
            _filled(column[start : start + rows], rows)
            for column in (prompts, valid, *responses[:3])
        ]
        columns = (
            jax.device_put(columns) if mesh is None else shard_batch(columns, mesh)
        )
        total += on_host(_summed(model, params, *columns, temperature=temperature))
    return total


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
    tokens_valid: Bool[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    temperature: float,
) -> Float32[Array, " V"]:
    """Sum over sampled positions of the next-token distribution."""
    hidden = response_hidden(model, params, prompts, valid, tokens, tokens_valid)
    return summed_distribution(model, params, hidden, mask, temperature=temperature)
