"""A real pretrained model beside transformers: FDJAX_TEST_MODEL is its folder."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fdjax.checkpoint import load_pretrained
from fdjax.sampling import SamplingConfig, SlotSampler, SlotsConfig
from fdjax.sharding import make_mesh

FOLDER = os.environ.get("FDJAX_TEST_MODEL", "")
TOKENS = 60

pytestmark = pytest.mark.skipif(
    not FOLDER, reason="FDJAX_TEST_MODEL names no folder of a pretrained chat model"
)


@pytest.fixture(scope="module")
def both():
    """Ours, theirs, and a prompt."""
    ours = load_pretrained(FOLDER, make_mesh(data=1, fsdp=-1))
    theirs = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Tell me about the sea."}],
        add_generation_prompt=True,
        return_dict=False,
    )
    return ours, theirs, np.array([prompt], np.int32)


def test_logits(both):
    ours, theirs, prompt = both
    with torch.no_grad():
        expected = theirs(torch.tensor(prompt.astype(np.int64))).logits.numpy()
    got = np.asarray(
        ours.model.apply(
            ours.params, jnp.asarray(prompt), valid=jnp.ones(prompt.shape, bool)
        )
    )
    # Sums of 30 layers in float32, in another order: seen 1.5e-4 at a scale of 38.
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_greedy_tokens(both):
    ours, theirs, prompt = both
    with torch.no_grad():
        expected = theirs.generate(
            torch.tensor(prompt.astype(np.int64)),
            max_new_tokens=TOKENS,
            do_sample=False,
        )
    sampler = SlotSampler(
        ours.model,
        SamplingConfig(max_new_tokens=TOKENS, top_k=1),
        SlotsConfig(longest=prompt.shape[1] + TOKENS, slots=8),
        ours.model.mesh,
    )
    sampler.publish(ours.params, 0)
    future = sampler.submit(prompt[0], jax.random.key(0), max_new_tokens=TOKENS)
    sampler.drain()
    got = future.result().tokens
    written = expected[0, prompt.shape[1] :].numpy()
    assert len(written) > TOKENS // 2  # the answer did not end at once
    np.testing.assert_array_equal(got[: len(written)], written)
