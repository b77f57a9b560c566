"""Sample groups of proofs, check each with Lean, collect feedback."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from transformers import PreTrainedTokenizerFast

from fdjax.data.chat import prompt_tokens
from fdjax.data.packing import pad_left
from fdjax.data.tokenizer import pad_token
from fdjax.feedback import Attempt, Feedback, Provider
from fdjax.lean import Verdict, Verifier
from fdjax.metrics import StageTimer
from fdjax.records import Problem
from fdjax.rollout.reward import verdict_rewards
from fdjax.sampling import Completions

__all__ = ["Rollout", "RolloutEngine"]


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """B = P·G attempts; the G attempts at one problem stand side by side."""

    problems: tuple[Problem, ...]
    """[B], each problem repeated G times."""
    group_size: int
    """G."""
    prompts: np.ndarray
    """Student prompts [B, S], left-padded token ids."""
    prompt_valid: np.ndarray
    """[B, S] bool."""
    completions: Completions
    """Sampled tokens [B, T] and what the sampler knew, as NumPy arrays."""
    proofs: tuple[str, ...]
    """[B], decoded."""
    verdicts: tuple[Verdict, ...]
    """[B]."""
    rewards: np.ndarray
    """[B] float32."""
    known: np.ndarray
    """[B] bool; False where Lean gave no verdict."""
    feedback: tuple[Feedback, ...]
    """[B]."""


@dataclass(frozen=True, kw_only=True)
class RolloutEngine:
    """Turns problems into verified attempts with feedback."""

    generate: Callable[..., Completions]
    """`generate(params, prompts, prompt_valid, key)` of `fdjax.sampling`."""
    tokenizer: PreTrainedTokenizerFast
    verifier: Verifier
    provider: Provider
    prompt_width: int
    """S, tokens; a longer prompt is an error."""

    def collect(
        self,
        params: Any,
        problems: Sequence[Problem],
        key: jax.Array,
        *,
        group_size: int,
        feedback: Sequence[str | None] | None = None,
        timer: StageTimer | None = None,
    ) -> Rollout:
        """Samples `group_size` attempts at each problem and has them judged.

        Args:
          params: policy parameters.
          problems: P problems.
          key: typed PRNG key of this rollout.
          group_size: G.
          feedback: text shown in each problem's prompt [P]; none for a student.
          timer: collects the seconds of each stage.

        Returns:
          P·G attempts with verdicts, rewards and feedback.
        """
        timer = timer or StageTimer()
        ids = prompt_tokens(self.tokenizer, problems, feedback)
        pad = pad_token(self.tokenizer)
        prompts, valid = pad_left(ids, width=self.prompt_width, pad=pad)
        with timer.stage("sample"):
            sampled = self.generate(
                params, prompts, valid, key, samples_per_prompt=group_size
            )
            completions = Completions(*(np.asarray(field) for field in sampled))
        proofs = self.decode(completions)
        repeated = tuple(p for p in problems for _ in range(group_size))
        with timer.stage("verify"):
            verdicts = self.verifier.verify(list(zip(repeated, proofs, strict=True)))
        with timer.stage("feedback"):
            notes = self.provider.write(
                [
                    Attempt(problem=problem, proof=proof, verdict=verdict)
                    for problem, proof, verdict in zip(
                        repeated, proofs, verdicts, strict=True
                    )
                ]
            )
        rewards, known = verdict_rewards(verdicts)
        return Rollout(
            problems=repeated,
            group_size=group_size,
            prompts=np.repeat(prompts, group_size, axis=0),
            prompt_valid=np.repeat(valid, group_size, axis=0),
            completions=completions,
            proofs=tuple(proofs),
            verdicts=tuple(verdicts),
            rewards=rewards,
            known=known,
            feedback=tuple(notes),
        )

    def decode(self, completions: Completions) -> list[str]:
        """The proof text of each completion, special tokens left out."""
        rows = [
            tokens[mask]
            for tokens, mask in zip(completions.tokens, completions.mask, strict=True)
        ]
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)
