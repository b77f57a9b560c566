"""Feedback Distillation as a term: the teacher that reads the feedback, and guards."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32

from fdjax.errors import ConfigError
from fdjax.losses import (
    contrast_logits,
    feedback_distillation_loss,
    sampled_distillation_loss,
)
from fdjax.losses.contrast import CONTRAST
from fdjax.losses.feedback_distillation import DIVERGENCE_CLIP
from fdjax.ops import (
    Divergence,
    forward_kl,
    masked_mean,
    scale_logits,
    token_logprobs,
    truncated_importance_weights,
)
from fdjax.ranges import Among, Number, require, require_fields
from fdjax.records import Metrics, union
from fdjax.rollout.arrays import Batch
from fdjax.rollout.batch import SCORE, Score
from fdjax.train.terms.term import (
    ROUTE,
    Needs,
    Reading,
    Route,
    Tokens,
    Weight,
    given,
    require_weight,
    routed,
)

__all__ = ["FD", "QuestionWeights"]

QuestionWeights = Literal["equal", "deviation", "variance"]
"""With p the pass rate of an attempt's group: 1, √(p(1−p)) or p(1−p)."""


@dataclass(frozen=True, kw_only=True)
class FD:
    """Divergence of the student from its teacher along the student's own tokens.

    1/Z Σ_bt m_bt w_bt min(D(q_bt, p_bt), c); Z counts the tokens that are scored,
    whatever their weights.
    """

    weight: Weight = 1.0
    """Factor of the loss."""
    divergence: Divergence | Literal["sampled_token"] = forward_kl
    """D of `fdjax.ops`, over the vocabulary; or the policy gradient of the reverse KL
    at the sampled tokens alone (`losses.sampled_distillation_loss`)."""
    reads: Literal["feedback", "nothing"] = "feedback"
    """What the teacher reads beside the question. A teacher that reads nothing is the
    control: what its weights do without any feedback. It scores every attempt with a
    reward, and no feedback is written."""
    score: Score = "all"
    """Which tokens of a failed attempt are scored: all, or those up to the first that
    the feedback would change."""
    route: Route = "all"
    """Attempts to learn from: all, those that passed or those that failed. Attempts
    without a reward have no feedback, and none is scored."""
    kl_clip: float | None = None
    """c, nats: a token whose divergence is larger counts as c and has no gradient."""
    question_weights: QuestionWeights = "equal"
    """w by the pass rate p of the attempt's group: 1, √(p(1−p)) or p(1−p); the latter
    two leave out questions that are always or never answered."""
    contrast: float | None = None
    """How much of a *wrong* hint's shift is taken from the target, in (0, 1]
    (`losses.contrast_logits`). Costs a second pass of the teacher, which reads the
    feedback on another problem of the batch."""
    importance_cap: float | None = 2.0
    """C of `ops.truncated_importance_weights`, for attempts sampled by older weights
    than those that learn: later updates on one rollout, or rollouts made ahead. Other
    attempts have weight 1, exactly. None never weighs."""

    name: ClassVar[str] = "fd"

    def __post_init__(self) -> None:
        require_weight("FD.weight", self.weight)
        require_fields(
            self,
            reads=Among("feedback", "nothing"),
            score=SCORE,
            route=ROUTE,
            question_weights=Among(*get_args(QuestionWeights)),
        )
        if self.kl_clip is not None:
            require("FD.kl_clip", self.kl_clip, DIVERGENCE_CLIP)
        if self.contrast is not None:
            require("FD.contrast", self.contrast, CONTRAST)
        if self.importance_cap is not None:
            require("FD.importance_cap", self.importance_cap, Number(above=0))
        if self.contrast is not None and self.reads == "nothing":
            raise ConfigError(
                "expected FD.contrast with a teacher that reads feedback, got "
                "reads='nothing': a wrong hint has no right one beside it"
            )
        if self.divergence == "sampled_token" and self.kl_clip is not None:
            raise ConfigError(
                "expected FD.kl_clip with a divergence over the vocabulary, got "
                "'sampled_token', whose estimate is of either sign: leave one out"
            )

    @property
    def needs(self) -> Needs:
        """The teacher, what it reads, and old log-probabilities to weigh by."""
        readings: set[Reading] = {self.reads}
        if self.contrast is not None:
            readings.add("wrong_feedback")
        return Needs(
            teacher=frozenset(readings),
            score=self.score if self.reads == "feedback" else None,
            old_logprobs=self.importance_cap is not None,
        )

    def mask(self, batch: Batch) -> Bool[Array, "B T"]:
        """Tokens on which the teacher is heard."""
        if self.reads == "nothing":
            heard = batch.written
        else:
            heard = given(batch.feedback, "feedback", "FD").mask
            if self.contrast is not None:
                wrong = given(batch.wrong_feedback, "wrong_feedback", "FD").mask
                heard = heard & wrong
        return heard & routed(self.route, batch)

    def normalizer(self, mask: Bool[Array, "B T"]) -> Float32[Array, ""]:
        """Scored tokens."""
        return mask.sum().astype(jnp.float32)

    def rows(
        self, batch: Batch, mask: Bool[Array, "B T"], step: Int32[Array, ""]
    ) -> dict[str, Array]:
        """Weights of the questions, and what the weights that sampled thought."""
        rows: dict[str, Array] = {}
        if self.question_weights != "equal":
            rate = given(batch.pass_rate, "pass_rate", "FD.question_weights")
            variance = rate * (1 - rate)
            weights = (
                jnp.sqrt(variance) if self.question_weights == "deviation" else variance
            )
            rows["question"] = jnp.broadcast_to(weights[:, None], mask.shape)
        if self.importance_cap is not None:
            version = given(batch.version, "version", "FD.importance_cap")
            rows["old_logprobs"] = jnp.asarray(
                given(batch.old_logprobs, "old_logprobs", "FD.importance_cap")
            )
            rows["stale"] = jnp.broadcast_to((version < step)[:, None], mask.shape)
        return rows

    def of_tokens(self, tokens: Tokens) -> tuple[Float32[Array, ""], Metrics]:
        """`losses.feedback_distillation_loss` or `sampled_distillation_loss`."""
        target, metrics = self._target(tokens)
        if self.divergence == "sampled_token":
            loss, of_loss = sampled_distillation_loss(
                self._logprobs(tokens.logits, tokens),
                teacher_logprobs=self._logprobs(target, tokens),
                mask=tokens.mask,
                normalizer=tokens.normalizer,
                weights=self._weights(tokens),
            )
        else:
            loss, of_loss = feedback_distillation_loss(
                tokens.logits,
                teacher_logits=target,
                mask=tokens.mask,
                normalizer=tokens.normalizer,
                divergence=self.divergence,
                temperature=tokens.temperature,
                divergence_clip=self.kl_clip,
                weights=self._weights(tokens),
            )
        return loss, union(of_loss, metrics)

    def _target(self, tokens: Tokens) -> tuple[Float32[Array, "R 1 V"], Metrics]:
        """The teacher's logits, without what a wrong hint does as well."""
        target = tokens.teacher_logits(self.reads)
        if self.contrast is None:
            return target, {}
        wrong = tokens.teacher_logits("wrong_feedback")
        student = jax.lax.stop_gradient(tokens.logits)
        shift = forward_kl(
            scale_logits(student, tokens.temperature),
            scale_logits(wrong, tokens.temperature),
        )
        contrasted = contrast_logits(
            target, wrong_logits=wrong, student_logits=student, strength=self.contrast
        )
        return contrasted, {"fd/wrong_hint_kl": masked_mean(shift, tokens.mask)}

    def _weights(self, tokens: Tokens) -> Float32[Array, "R 1"] | None:
        """Of the questions and of stale attempts, multiplied; None for 1 everywhere."""
        weights = tokens.rows.get("question")
        if self.importance_cap is None:
            return weights
        ratios = truncated_importance_weights(
            self._logprobs(tokens.logits, tokens),
            old_logprobs=tokens.rows["old_logprobs"],
            mask=tokens.mask,
            cap=self.importance_cap,
        )
        # Not the ratio where it should be 1: sampler and trainer round differently.
        fresh_is_one = jnp.where(tokens.rows["stale"], ratios, 1.0)
        return fresh_is_one if weights is None else weights * fresh_is_one

    @staticmethod
    def _logprobs(
        logits: Float32[Array, "R 1 V"], tokens: Tokens
    ) -> Float32[Array, "R 1"]:
        return token_logprobs(logits, tokens.tokens, temperature=tokens.temperature)
