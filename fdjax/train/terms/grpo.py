"""Group-relative policy gradients as terms: on ratios of tokens or of sequences."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

from fdjax.losses import cispo_loss, dual_clip_grpo_loss, grpo_loss, gspo_loss
from fdjax.losses.grpo import CLIP_HIGH, CLIP_LOW
from fdjax.ops import (
    divide_by_normalizer,
    kl_k1,
    kl_k2,
    kl_k3,
    masked_mean,
    masked_sum,
    sequence_mean_weights,
    token_logprobs,
)
from fdjax.ranges import Among, Number, require_fields
from fdjax.records import Metrics, union
from fdjax.rollout.arrays import Batch
from fdjax.train.terms.term import (
    ROUTE,
    AdvantageName,
    Needs,
    Route,
    Tokens,
    Weight,
    given,
    require_weight,
    routed,
)

__all__ = [
    "CISPO",
    "GRPO",
    "GSPO",
    "Aggregation",
    "Clipped",
    "DualClip",
    "ReferenceKL",
]

Aggregation = Literal["token", "sequence", "constant"]
"""Mean over the scored tokens of the global batch; mean over sequences of their token
means; or sum over tokens divided by sequences × T, the most tokens of a response."""

_ADVANTAGE = Among(*get_args(AdvantageName))


@dataclass(frozen=True, kw_only=True)
class Clipped:
    """`losses.grpo_loss`: the clipped surrogate."""

    low: float = 0.2
    """ε_low in [0, 1]."""
    high: float = 0.28
    """ε_high; 0.28 is DAPO's clip-higher, 0.2 the symmetric original."""

    def __post_init__(self) -> None:
        require_fields(self, low=CLIP_LOW, high=CLIP_HIGH)


@dataclass(frozen=True, kw_only=True)
class DualClip:
    """`losses.dual_clip_grpo_loss`: with a floor for negative advantages."""

    low: float = 0.2
    """ε_low in [0, 1]."""
    high: float = 0.28
    """ε_high."""
    dual: float = 3.0
    """c, greater than 1 + ε_high."""

    def __post_init__(self) -> None:
        require_fields(self, low=CLIP_LOW, high=CLIP_HIGH)
        require_fields(self, dual=Number(above=1 + self.high))


@dataclass(frozen=True, kw_only=True)
class CISPO:
    """`losses.cispo_loss`: the capped ratio weighs the policy gradient."""

    cap: float = 5.0
    """c, a bound on the ratio itself."""

    def __post_init__(self) -> None:
        require_fields(self, cap=Number(least=1))


@dataclass(frozen=True, kw_only=True)
class ReferenceKL:
    """A penalty on the distance from the teacher as it is *without* feedback.

    With a `BaseTeacher` that is the policy that the phase began with. It costs a pass
    of the teacher over the student's prompts.
    """

    beta: float
    """β, factor of the KL."""
    estimator: Literal["k1", "k2", "k3"] = "k3"
    """k1 is taken from the advantage of each token; its gradient is that of KL(p‖ref).
    k2 and k3 are added to the loss: on policy the gradient of k2 is that of KL(p‖ref),
    of k3 that of KL(ref‖p)."""

    def __post_init__(self) -> None:
        require_fields(self, beta=Number(above=0), estimator=Among("k1", "k2", "k3"))


@dataclass(frozen=True, kw_only=True)
class GRPO:
    """Policy gradient relative to the other attempts at the problem.

    Attempts by older weights need no importance weights: the surrogates' ratios are
    just these.
    """

    weight: Weight = 1.0
    """Factor of the loss."""
    surrogate: Clipped | DualClip | CISPO = Clipped()
    """What is made of the ratio."""
    advantage: AdvantageName = "zscore"
    """(R − mean) / (std + 1e-4), R − mean (Dr. GRPO), or R − mean of the others."""
    aggregation: Aggregation = "token"
    """How tokens are averaged: DAPO's, GRPO's own, or Dr. GRPO's way."""
    route: Route = "all"
    """Attempts to learn from; their advantages are of the whole group in any case."""
    reference: ReferenceKL | None = None
    """Penalty on the distance from a reference."""

    name: ClassVar[str] = "grpo"

    def __post_init__(self) -> None:
        require_weight("GRPO.weight", self.weight)
        require_fields(
            self,
            advantage=_ADVANTAGE,
            aggregation=Among(*get_args(Aggregation)),
            route=ROUTE,
        )

    @property
    def needs(self) -> Needs:
        """Advantages, old log-probabilities, and the reference."""
        return Needs(
            teacher=frozenset({"nothing"} if self.reference else ()),
            advantage=self.advantage,
            old_logprobs=True,
        )

    def mask(self, batch: Batch) -> Bool[Array, "B T"]:
        """Tokens of attempts with a reward."""
        return batch.written & routed(self.route, batch)

    def normalizer(self, mask: Bool[Array, "B T"]) -> Float32[Array, ""]:
        """Scored tokens, sequences, or sequences times T."""
        match self.aggregation:
            case "token":
                return mask.sum().astype(jnp.float32)
            case "sequence":
                return _sequences(mask)
            case "constant":
                return _sequences(mask) * mask.shape[1]

    def rows(
        self, batch: Batch, mask: Bool[Array, "B T"], step: Int32[Array, ""]
    ) -> dict[str, Array]:
        """Advantage and old log-probability of each token."""
        del step
        advantages = jnp.asarray(given(batch.advantages, "advantages", "GRPO"))
        rows = {
            "advantages": jnp.broadcast_to(advantages[:, None], mask.shape),
            "old_logprobs": jnp.asarray(
                given(batch.old_logprobs, "old_logprobs", "GRPO")
            ),
        }
        if self.aggregation == "sequence":
            rows["weights"] = sequence_mean_weights(mask)
        return rows

    def of_tokens(self, tokens: Tokens) -> tuple[Float32[Array, ""], Metrics]:
        """The surrogate, and the penalty."""
        logprobs = token_logprobs(
            tokens.logits, tokens.tokens, temperature=tokens.temperature
        )
        advantages = tokens.rows["advantages"]
        weights = tokens.rows.get("weights")
        added, metrics = None, {}
        if self.reference is not None:
            penalty, metrics = self._penalty(self.reference, logprobs, tokens)
            if self.reference.estimator == "k1":
                advantages = advantages - penalty
            else:
                added = penalty if weights is None else penalty * weights
        loss, of_loss = self._surrogate()(
            logprobs,
            old_logprobs=tokens.rows["old_logprobs"],
            # A row here is one token.
            advantages=advantages[:, 0],
            mask=tokens.mask,
            normalizer=tokens.normalizer,
            weights=weights,
        )
        if added is not None:
            total = masked_sum(added, tokens.mask)
            loss = loss + divide_by_normalizer(total, tokens.normalizer)
        return loss, union(of_loss, metrics)

    def _surrogate(self) -> partial[tuple[Float32[Array, ""], Metrics]]:
        match self.surrogate:
            case Clipped(low=low, high=high):
                return partial(grpo_loss, clip_low=low, clip_high=high)
            case DualClip(low=low, high=high, dual=dual):
                return partial(
                    dual_clip_grpo_loss, clip_low=low, clip_high=high, dual_clip=dual
                )
            case CISPO(cap=cap):
                return partial(cispo_loss, ratio_cap=cap)

    def _penalty(
        self, reference: ReferenceKL, logprobs: Float32[Array, "R 1"], tokens: Tokens
    ) -> tuple[Float32[Array, "R 1"], Metrics]:
        """β times the estimate of each token; with k1 without gradient."""
        estimate = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}[reference.estimator]
        fixed = jax.lax.stop_gradient(logprobs)
        against = {
            "reference_logprobs": token_logprobs(
                tokens.teacher_logits("nothing"),
                tokens.tokens,
                temperature=tokens.temperature,
            ),
            "mask": tokens.mask,
        }
        moving = fixed if reference.estimator == "k1" else logprobs
        observed = masked_mean(kl_k3(fixed, **against), tokens.mask)
        return reference.beta * estimate(moving, **against), {
            "grpo/reference_kl": observed
        }


@dataclass(frozen=True, kw_only=True)
class GSPO:
    """`losses.gspo_loss`: GRPO on one ratio for each sequence."""

    weight: Weight = 1.0
    """Factor of the loss."""
    low: float = 3e-4
    """ε_low in [0, 1]."""
    high: float = 4e-4
    """ε_high."""
    advantage: AdvantageName = "zscore"
    """As for `GRPO`."""
    route: Route = "all"
    """As for `GRPO`."""

    name: ClassVar[str] = "gspo"

    def __post_init__(self) -> None:
        require_weight("GSPO.weight", self.weight)
        require_fields(
            self, low=CLIP_LOW, high=CLIP_HIGH, advantage=_ADVANTAGE, route=ROUTE
        )

    @property
    def needs(self) -> Needs:
        """Advantages and old log-probabilities."""
        return Needs(advantage=self.advantage, old_logprobs=True)

    def mask(self, batch: Batch) -> Bool[Array, "B T"]:
        """Tokens of attempts with a reward."""
        return batch.written & routed(self.route, batch)

    def normalizer(self, mask: Bool[Array, "B T"]) -> Float32[Array, ""]:
        """Sequences with a scored token."""
        return _sequences(mask)

    def of_sequences(
        self,
        logprobs: Float[Array, "B T"],
        *,
        batch: Batch,
        mask: Bool[Array, "B T"],
        normalizer: Float[Array, ""],
    ) -> tuple[Float32[Array, ""], Metrics]:
        """`losses.gspo_loss`."""
        return gspo_loss(
            logprobs,
            old_logprobs=jnp.asarray(given(batch.old_logprobs, "old_logprobs", "GSPO")),
            advantages=jnp.asarray(given(batch.advantages, "advantages", "GSPO")),
            mask=mask,
            normalizer=normalizer,
            clip_low=self.low,
            clip_high=self.high,
        )


def _sequences(mask: Bool[Array, "B T"]) -> Float32[Array, ""]:
    """How many have a scored token."""
    return mask.any(axis=1).sum().astype(jnp.float32)
