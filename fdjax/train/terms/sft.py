"""SFT as a term: imitate what passed."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32

from fdjax.losses import sft_loss
from fdjax.ops import token_logprobs
from fdjax.records import Metrics
from fdjax.rollout.arrays import Batch
from fdjax.train.terms.term import Needs, Tokens, Weight, require_weight

__all__ = ["SFT"]


@dataclass(frozen=True, kw_only=True)
class SFT:
    """Cross-entropy on reference proofs; on attempts, those that passed.

    On attempts this is expert iteration, and the cross-entropy is that of the
    distribution they were sampled from, temperature and all.
    """

    weight: Weight = 1.0
    """Factor of the loss."""

    name: ClassVar[str] = "sft"

    def __post_init__(self) -> None:
        require_weight("SFT.weight", self.weight)

    @property
    def needs(self) -> Needs:
        """Nothing beyond tokens and rewards."""
        return Needs()

    def mask(self, batch: Batch) -> Bool[Array, "B T"]:
        """Tokens of reference proofs, or of attempts that passed."""
        return jnp.asarray(batch.written) & batch.passed[:, None]

    def normalizer(self, mask: Bool[Array, "B T"]) -> Float32[Array, ""]:
        """Scored tokens."""
        return mask.sum().astype(jnp.float32)

    def rows(
        self, batch: Batch, mask: Bool[Array, "B T"], step: Int32[Array, ""]
    ) -> dict[str, Array]:
        """Nothing more."""
        del batch, mask, step
        return {}

    def of_tokens(self, tokens: Tokens) -> tuple[Float32[Array, ""], Metrics]:
        """`losses.sft_loss`."""
        return sft_loss(
            token_logprobs(
                tokens.logits, tokens.tokens, temperature=tokens.temperature
            ),
            mask=tokens.mask,
            normalizer=tokens.normalizer,
        )
