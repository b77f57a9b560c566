"""Every sampled attempt as a row of samples.jsonl, some with the teacher's opinion."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerFast

from fdjax.data.tokenizer import token_texts
from fdjax.feedback import Attempt, attempt_row
from fdjax.metrics import SampleWriter
from fdjax.model import Model
from fdjax.ops import (
    Chunking,
    chunked_rows,
    forward_kl,
    head_logits,
    scale_logits,
    token_logprobs,
)
from fdjax.rollout import Batch, Rollout
from fdjax.sharding import batch_parts, on_host, shard_batch
from fdjax.tools import Observation
from fdjax.train import StepData, TrainState, response_hidden, teacher_hidden
from fdjax.train.terms.term import given

__all__ = ["AttemptLog"]

_HEAT_EVERY = 10
"""Iterations between those whose tokens are compared for the report: it costs a pass of
student and teacher each, half of a step's products without remat."""
_HEAT_ROWS = 32
"""Attempts of such an iteration whose tokens are compared, at most."""
_HEAT_TOKENS = 1 << 15
"""Tokens of these attempts with the teacher's prompts, padding included, at most."""


class _Heat(NamedTuple):
    """Teacher q against student p at each token, in nats; None where not scored."""

    kl: list[float | None]
    """KL(q‖p) of the next-token distributions."""
    log_ratio: list[float | None]
    """log q − log p of the token itself: above zero where the teacher would sooner have
    written it."""


@dataclass(frozen=True, kw_only=True)
class AttemptLog:
    """Writes attempts with verdict, messages, feedback and reward."""

    model: Model
    tokenizer: PreTrainedTokenizerFast
    samples: SampleWriter
    temperature: float
    """At which attempts are sampled; the distributions compared are those at it."""

    def write(self, arm: str, done: int, state: TrainState, data: StepData) -> None:
        """Appends the attempts of an iteration, before its optimizer steps."""
        rollout = data.rollout
        if rollout is None:
            return
        heat = {} if done % _HEAT_EVERY else self._heat(state, data, rollout)
        for row, each in enumerate(rollout.trajectories):
            attempt = Attempt(
                problem=each.problem, text=each.text, judgement=each.judgement
            )
            tokens = each.row.tokens[each.episode.last]
            self.samples.write(
                {
                    "arm": arm,
                    "step": done + 1,
                    **attempt_row(attempt),
                    "ended": each.episode.ended,
                    "calls": [_call(seen) for seen in each.episode.observations],
                    "feedback": each.feedback.text or None,
                    "feedback_error": each.feedback.error,
                    "tokens": (
                        token_texts(self.tokenizer, tokens) if row in heat else None
                    ),
                    "kl": heat[row].kl if row in heat else None,
                    "log_ratio": heat[row].log_ratio if row in heat else None,
                }
            )

    def _heat(
        self, state: TrainState, data: StepData, rollout: Rollout
    ) -> dict[int, _Heat]:
        """Row to the comparison of its last turn's tokens.

        Where a file was judged, the last turn is not what is shown.
        """
        first = data.batches[0]
        read = first.feedback if isinstance(first, Batch) else None
        if read is None:
            return {}
        rows = self._heat_rows(read.prompts.shape[1] + first.responses.shape[1])
        part = jax.tree.map(lambda column: column[:rows], first)
        mesh = self.model.mesh
        placed = part if mesh is None else shard_batch(part, mesh)
        compared = on_host(self._compared(state.policy, state.teacher_policy, placed))
        heat: dict[int, _Heat] = {}
        for index, scored in enumerate(read.mask[:rows]):
            # An iteration's attempts are dealt in turn to its optimizer steps.
            row = index * len(data.batches)
            episode = rollout.trajectories[row].episode
            if episode.from_file:
                continue
            last = episode.last
            heat[row] = _Heat(
                *(_scored(values[index][last], scored[last]) for values in compared)
            )
        return heat

    def _heat_rows(self, width: int) -> int:
        """Rows within both limits, as many for each device; at least one.

        Args:
          width: tokens of a row with the teacher's prompt.
        """
        parts = 1 if self.model.mesh is None else batch_parts(self.model.mesh)
        return max(1, min(_HEAT_ROWS, _HEAT_TOKENS // width) // parts) * parts

    @cached_property
    def _compared(self) -> Callable[..., tuple[jax.Array, jax.Array]]:
        """Jitted KL(q‖p) and log q − log p of each token, nats [B, T] each.

        As in the losses, logits exist for a chunk of tokens only.
        """
        model, temperature = self.model, self.temperature

        def of_chunk(
            logits: jax.Array, rows: Any, teacher_head: Any
        ) -> tuple[jax.Array, jax.Array]:
            informed = jnp.where(rows["mask"][:, None], rows["informed"], 0)
            student, teacher = (
                scale_logits(each, temperature)
                for each in (logits, head_logits(informed, teacher_head))
            )
            log_p, log_q = (
                token_logprobs(each, rows["tokens"]) for each in (student, teacher)
            )
            return forward_kl(student, teacher), log_q - log_p

        def compared(
            params: Any, teacher: Any, batch: Batch
        ) -> tuple[jax.Array, jax.Array]:
            read = given(batch.feedback, "feedback", "the log of attempts")
            student = response_hidden(
                model,
                params,
                batch.prompts,
                batch.prompt_valid,
                batch.responses,
                batch.response_valid,
            )
            informed = teacher_hidden(model, teacher, batch, "feedback")
            return chunked_rows(
                of_chunk,
                student,
                model.output_embeddings(params),
                mask=read.mask,
                rows={"informed": informed, "tokens": batch.responses},
                shared=model.output_embeddings(teacher),
                chunking=Chunking(mesh=model.mesh),
            )

        return jax.jit(compared)


def _scored(values: np.ndarray, scored: np.ndarray) -> list[float | None]:
    """Values of tokens, None where they are not scored."""
    return [
        round(float(value), 4) if counts else None
        for value, counts in zip(values, scored, strict=True)
    ]


def _call(seen: Observation) -> dict[str, Any]:
    """A call and its answer as a part of a row."""
    return {
        "tool": seen.tool,
        "arguments": seen.arguments,
        "answer": seen.text,
        "ended": seen.ended,
    }
