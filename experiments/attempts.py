"""Every sampled attempt as a row of samples.jsonl, some with the teacher's opinion."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from transformers import PreTrainedTokenizerFast

from fdjax.data.tokenizer import token_texts
from fdjax.lean import Diagnostic
from fdjax.metrics import SampleWriter
from fdjax.model import Model
from fdjax.ops import forward_kl
from fdjax.rollout import DistillationBatch
from fdjax.train import StepData, TrainState, distillation_hidden

__all__ = ["AttemptLog"]

_HEAT_ROWS = 32
"""Attempts of an FD iteration whose per-token KL is kept for the report."""


@dataclass(frozen=True, kw_only=True)
class AttemptLog:
    """Writes attempts with verdict, messages, feedback and reward."""

    model: Model
    tokenizer: PreTrainedTokenizerFast
    samples: SampleWriter

    def write(self, arm: str, done: int, state: TrainState, data: StepData) -> None:
        """Appends the attempts of an iteration, before its optimizer steps."""
        rollout = data.rollout
        if rollout is None:
            return
        heat = self._heat(state, data)
        for row, verdict in enumerate(rollout.verdicts):
            sampled = rollout.completions
            tokens = sampled.tokens[row][sampled.mask[row]]
            self.samples.write(
                {
                    "arm": arm,
                    "step": done + 1,
                    "problem": rollout.problems[row].name,
                    "statement": rollout.problems[row].statement,
                    "proof": rollout.proofs[row],
                    "status": verdict.status.value,
                    "messages": [_message(d) for d in verdict.diagnostics],
                    "feedback": rollout.feedback[row].text or None,
                    "reward": (
                        float(rollout.rewards[row]) if rollout.known[row] else None
                    ),
                    "tokens": (
                        token_texts(self.tokenizer, tokens) if row in heat else None
                    ),
                    "kl": heat.get(row),
                }
            )

    def _heat(self, state: TrainState, data: StepData) -> dict[int, list[float | None]]:
        """Row to the KL of its sampled tokens, nats, None where not scored."""
        first = data.batches[0]
        if not isinstance(first, DistillationBatch):
            return {}
        part = jax.tree.map(lambda column: column[:_HEAT_ROWS], first)
        divergence = np.asarray(self._divergence(state.params, state.teacher, part))
        rows: dict[int, list[float | None]] = {}
        for index, (values, scored, sampled) in enumerate(
            zip(divergence, part.mask, part.response_valid, strict=True)
        ):
            # An iteration's attempts are dealt in turn to its optimizer steps.
            rows[index * len(data.batches)] = [
                round(float(value), 4) if counts else None
                for value, counts in zip(values[sampled], scored[sampled], strict=True)
            ]
        return rows

    @cached_property
    def _divergence(self) -> Callable[..., jax.Array]:
        """Jitted KL(teacher‖student) of each response token, nats [B, T]."""

        def divergence(
            params: Any, teacher: Any, batch: DistillationBatch
        ) -> jax.Array:
            student, informed = distillation_hidden(self.model, params, teacher, batch)
            return forward_kl(
                self.model.head(params, student), self.model.head(teacher, informed)
            )

        return jax.jit(divergence)


def _message(diagnostic: Diagnostic) -> dict[str, Any]:
    return {
        "severity": diagnostic.severity,
        "line": diagnostic.line if diagnostic.in_proof else 0,
        "column": diagnostic.column,
        "end_line": diagnostic.end_line,
        "end_column": diagnostic.end_column,
        "text": diagnostic.text,
    }
