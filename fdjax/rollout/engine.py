"""Sample groups of proofs, check each with Lean, collect feedback."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, Key
from transformers import PreTrainedTokenizerFast

from fdjax.data.chat import prompt_tokens
from fdjax.data.packing import pad_left
from fdjax.data.tokenizer import continuation_texts, end_token, pad_token
from fdjax.errors import DataError
from fdjax.feedback import Attempt, Feedback, Provider
from fdjax.lean import Status, Verdict, Verifier
from fdjax.metrics import StageTimer
from fdjax.ranges import Whole, require, require_fields
from fdjax.records import Problem
from fdjax.rollout.outcomes import verify_attempts, write_feedback
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
    prompts: Int32[np.ndarray, "B S"]
    """Student prompts, left-padded token ids."""
    prompt_valid: Bool[np.ndarray, "B S"]
    """True on their tokens, False on padding."""
    completions: Completions
    """Sampled tokens [B, T] and what the sampler knew, as NumPy arrays."""
    proofs: tuple[str, ...]
    """[B], decoded."""
    verdicts: tuple[Verdict, ...]
    """[B]."""
    rewards: Float32[np.ndarray, " B"]
    """1 for a proof, else 0."""
    known: Bool[np.ndarray, " B"]
    """False where Lean gave no verdict."""
    feedback: tuple[Feedback, ...]
    """[B]."""

    def __post_init__(self) -> None:
        size = len(self.problems)
        if self.group_size < 1 or not size or size % self.group_size:
            raise DataError(
                f"Rollout: expected whole groups of group_size = {self.group_size} >= "
                f"1 attempts, got {size}; repeat each problem group_size times"
            )
        damaged = int((~np.isfinite(self.rewards[self.known])).sum())
        if damaged:
            raise DataError(
                f"Rollout: expected finite rewards where known is True, got {damaged} "
                "that are not; a missing reward has known = False"
            )

    @property
    def sampled(self) -> Bool[np.ndarray, " B"]:
        """False where the prompt was too long to sample from."""
        return np.asarray(self.completions.mask).sum(axis=1) > 0


@dataclass(frozen=True, kw_only=True)
class RolloutEngine:
    """Turns problems into verified attempts with feedback."""

    generate: Callable[..., Completions]
    """`generate(params, prompts, prompt_valid, key)` of `fdjax.sampling`."""
    tokenizer: PreTrainedTokenizerFast
    verifier: Verifier
    provider: Provider
    prompt_width: int
    """S, tokens; from a longer prompt nothing is sampled."""

    def __post_init__(self) -> None:
        require_fields(self, prompt_width=Whole(1))
        pad_token(self.tokenizer)
        end_token(self.tokenizer)

    def collect(
        self,
        params: Any,
        problems: Sequence[Problem],
        key: Key[Array, ""],
        *,
        group_size: int,
        feedback: Sequence[str | None] | None = None,
        timer: StageTimer | None = None,
    ) -> Rollout:
        """Samples `group_size` attempts at each problem and has them judged.

        What goes wrong with an attempt costs that attempt: its reward is unknown and
        its feedback an error that says why.

        Args:
          params: policy parameters.
          problems: P problems.
          key: typed PRNG key of this rollout.
          group_size: G.
          feedback: text shown in each problem's prompt [P]; none for a student.
          timer: collects the seconds of each stage.

        Returns:
          P·G attempts with verdicts, rewards and feedback.

        Raises:
          ConfigError: `group_size` is not positive; the tokenizer lacks a template.
          DataError: there are no problems.
          InstallError: Lean is not installed.
        """
        require("group_size", group_size, Whole(1))
        if not problems:
            raise DataError("RolloutEngine.collect: expected problems, got none")
        timer = timer or StageTimer()
        ids = prompt_tokens(self.tokenizer, problems, feedback)
        # A prompt that does not fit is cut, to keep its place in the batch.
        prompts, valid = pad_left(
            [row[-self.prompt_width :] for row in ids],
            width=self.prompt_width,
            pad=pad_token(self.tokenizer),
        )
        unsampled = [self._unsampled(row) for row in ids for _ in range(group_size)]
        fits = np.array([verdict is None for verdict in unsampled])
        with timer.stage("sample"):
            sampled = self.generate(
                params, prompts, valid, key, samples_per_prompt=group_size
            )
            completions = jax.tree.map(np.asarray, sampled)
        completions = completions._replace(mask=completions.mask & fits[:, None])
        proofs = self.decode(completions)
        repeated = tuple(p for p in problems for _ in range(group_size))
        with timer.stage("verify"):
            attempts = list(compress(zip(repeated, proofs, strict=True), fits))
            judged = iter(verify_attempts(self.verifier, attempts))
            verdicts = [verdict or next(judged) for verdict in unsampled]
        with timer.stage("feedback"):
            notes = write_feedback(
                self.provider,
                [
                    Attempt(problem=problem, proof=proof, verdict=verdict)
                    for problem, proof, verdict in zip(
                        repeated, proofs, verdicts, strict=True
                    )
                ],
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

    def _unsampled(self, prompt: Sequence[int]) -> Verdict | None:
        """The verdict on attempts at a prompt that is too long; None for any other."""
        if len(prompt) <= self.prompt_width:
            return None
        return Verdict(
            status=Status.CRASHED,
            reason=f"nothing was sampled: the prompt has {len(prompt)} tokens, more "
            f"than prompt_width = {self.prompt_width}",
        )

    def decode(self, completions: Completions) -> list[str]:
        """The proof text of each completion, control tokens left out."""
        rows = [
            tokens[mask]
            for tokens, mask in zip(completions.tokens, completions.mask, strict=True)
        ]
        return continuation_texts(self.tokenizer, rows)
