"""The contract of losses for terms with all that may be set, on logits."""

import jax.numpy as jnp
import numpy as np
import pytest

import loss_contract
from fdjax.train import CISPO, FD, GRPO, SFT, ReferenceKL, Tokens

VOCABULARY = 5
TERMS = {
    "fd": FD(
        kl_clip=3.0, contrast=0.5, question_weights="deviation", importance_cap=1.5
    ),
    "plain fd": FD(question_weights="variance", importance_cap=None),
    "fd sampled": FD(divergence="sampled_token", importance_cap=1.5),
    "grpo": GRPO(reference=ReferenceKL(beta=0.5, estimator="k2")),
    "cispo": GRPO(surrogate=CISPO(), reference=ReferenceKL(beta=0.5, estimator="k1")),
    "sft": SFT(),
}


def closure(term):
    """Of logits [B, T, V] and a dict of arrays, tokens one by one as in a chunk.

    There, too, hidden states under the mask are zeros before there are logits.
    """

    def flat(array):
        return array.reshape(-1, 1, *array.shape[2:])

    def loss(logits, batch, normalizer):
        rows = {name: flat(array) for name, array in batch.items()}
        scored = rows["mask"][..., None]
        logits = jnp.where(scored, flat(logits), 0)
        return term.of_tokens(
            Tokens(
                logits=logits,
                tokens=rows["tokens"],
                mask=rows["mask"],
                rows=rows,
                normalizer=normalizer,
                temperature=0.7,
                teacher_logits=lambda reading: jnp.where(
                    scored, rows[f"teacher.{reading}"], 0
                ),
            )
        )

    return loss


CLOSURES = {name: closure(term) for name, term in TERMS.items()}


@pytest.fixture
def inputs():
    rng = np.random.default_rng(5)
    mask = loss_contract.scored_mask()

    def draw(*shape):
        return rng.normal(0, 1, (*mask.shape, *shape)).astype(np.float32)

    batch = {
        "mask": mask,
        "tokens": rng.integers(0, VOCABULARY, mask.shape, dtype=np.int32),
        "old_logprobs": draw() - 2,
        "stale": rng.random(mask.shape) < 0.5,
        "question": np.abs(draw()),
        "advantages": draw(),
        "weights": np.abs(draw()),
        **{
            f"teacher.{reading}": draw(VOCABULARY)
            for reading in ("feedback", "wrong_feedback", "nothing")
        },
    }
    return draw(VOCABULARY), batch, jnp.float32(mask.sum())


@pytest.mark.parametrize("name", ["plain fd", "grpo", "sft"])
def test_gradient(name, inputs):
    """Of the terms whose loss is a primitive of its gradient, stopped nowhere."""
    loss_contract.check_gradient(CLOSURES[name], *inputs)


@pytest.mark.parametrize("name", TERMS)
def test_padding_is_inert(name, inputs):
    loss_contract.check_inert_padding(CLOSURES[name], *inputs)


@pytest.mark.parametrize("name", TERMS)
def test_microbatches_add_up(name, inputs):
    loss_contract.check_microbatches(CLOSURES[name], *inputs)


@pytest.mark.parametrize("name", TERMS)
def test_eight_devices_equal_one(name, inputs):
    loss_contract.check_eight_devices(CLOSURES[name], *inputs)
