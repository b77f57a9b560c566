"""Every sampled attempt as a row of samples.jsonl, some with the teacher's opinion."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from transformers import PreTrainedTokenizerFast

from fdjax.data.tokenizer import token_texts
from fdjax.feedback import Attempt, attempt_row
from fdjax.metrics import SampleWriter
from fdjax.model import Model
from fdjax.ops import Chunking, chunked_rows, forward_kl, head_logits, scale_logits
from fdjax.rollout import Batch, Rollout
from fdjax.sharding import batch_parts, on_host, shard_batch
from fdjax.tools import Observation
from fdjax.train import StepData, TrainState, response_hidden, teacher_hidden
from fdjax.train.terms.term import given

__all__ = ["AttemptLog"]

_HEAT_EVERY = 10
"""Iterations between those whose per-token KL is kept for the report: it costs a pass
of student and teacher each, half of a step's products without remat."""
_HEAT_ROWS = 32
"""Attempts of such an iteration with their per-token KL, at most."""
_HEAT_TOKENS = 1 << 15
"""Tokens of these attempts with the teacher's prompts, padding included, at most."""


@dataclass(frozen=True, kw_only=True)
class AttemptLog:
    """Writes attempts with verdict, messages, feedback and reward."""

    model: Model
    tokenizer: PreTrainedTokenizerFast
    samples: SampleWriter
    temperature: float
    """At which attempts are sampled; the KL is of the distributions at it."""

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
                    "kl": heat.get(row),
                }
            )

    def _heat(
        self, state: TrainState, data: StepData, rollout: Rollout
    ) -> dict[int, list[float | None]]:
        """Row to the KL of its last turn's tokens, nats, None where not scored.

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
        divergence = on_host(
            self._divergence(state.policy, state.teacher_policy, placed)
        )
        heat: dict[int, list[float | None]] = {}
        for index, (values, scored) in enumerate(
            zip(divergence, read.mask[:rows], strict=True)
        ):
            # An iteration's attempts are dealt in turn to its optimizer steps.
            row = index * len(data.batches)
            episode = rollout.trajectories[row].episode
            if episode.from_file:
                continue
            last = episode.last
            heat[row] = [
                round(float(value), 4) if counts else None
                for value, counts in zip(values[last], scored[last], strict=True)
            ]
        return heat

    def _heat_rows(self, width: int) -> int:
        """Rows within both limits, as many for each device; at least one.

        Args:
          width: tokens of a row with the teacher's prompt.
        """
        parts = 1 if self.model.mesh is None else batch_parts(self.model.mesh)
        return max(1, min(_HEAT_ROWS, _HEAT_TOKENS // width) // parts) * parts

    @cached_property
    def _divergence(self) -> Callable[..., jax.Array]:
        """Jitted KL(teacher‖student) of each scored token, nats [B, T].

        As in the losses, logits exist for a chunk of tokens only.
        """
        model, temperature = self.model, self.temperature

        def of_chunk(logits: jax.Array, rows: Any, teacher_head: Any) -> jax.Array:
            informed = jnp.where(rows["mask"][:, None], rows["informed"], 0)
            return forward_kl(
                scale_logits(logits, temperature),
                scale_logits(head_logits(informed, teacher_head), temperature),
            )

        def divergence(params: Any, teacher: Any, batch: Batch) -> jax.Array:
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
                rows={"informed": informed},
                shared=model.output_embeddings(teacher),
                chunking=Chunking(mesh=model.mesh),
            )

        return jax.jit(divergence)


def _call(seen: Observation) -> dict[str, Any]:
    """A call and its answer as a part of a row."""
    return {
        "tool": seen.tool,
        "arguments": seen.arguments,
        "answer": seen.text,
        "ended": seen.ended,
    }
