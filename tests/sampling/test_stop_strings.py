"""Rows that a string ends: with the token that completes it, and none behind."""

import jax
import numpy as np
import pytest

from fdjax.errors import ConfigError
from fdjax.sampling import SamplingConfig, SlotSampler, SlotsConfig, StopStrings
from tiny import MODEL, TOKENIZER


def decode(tokens):
    return TOKENIZER.decode(tokens, skip_special_tokens=False)


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0))


def sampled(params, strings=None, steps=5):
    sampler = SlotSampler(
        MODEL,
        SamplingConfig(max_new_tokens=24),
        SlotsConfig(longest=40, slots=4, page=4, steps=steps),
        stop_strings=strings,
    )
    sampler.publish(params, 1)
    futures = [
        sampler.submit([5, 6, 7], jax.random.key(seed), max_new_tokens=24)
        for seed in range(6)
    ]
    sampler.drain()
    return [future.result() for future in futures]


@pytest.mark.parametrize("steps", [1, 5])
def test_a_row_ends_with_the_token_that_completes_a_string(params, steps):
    """The strings are two tokens of one row, and one of another; slots are refilled."""
    plain = sampled(params)
    texts = [decode(each.tokens[7:9].tolist()) for each in plain[:1]]
    texts.append(decode(plain[4].tokens[3:4].tolist()))
    strings = StopStrings(strings=tuple(texts), decode=decode)
    ended = 0
    for one, whole in zip(sampled(params, strings, steps), plain, strict=True):
        count = len(one.tokens)
        np.testing.assert_array_equal(one.tokens, whole.tokens[:count])
        np.testing.assert_allclose(one.logprobs, whole.logprobs[:count], atol=5e-5)
        found = [any(text in decode(row) for text in texts) for row in _starts(whole)]
        assert count == (found.index(True) if any(found) else 24)
        assert one.stop == ("stop" if any(found) else "length")
        ended += any(found)
    assert ended >= 2


def _starts(sample):
    """The first tokens of a sample, none at first."""
    tokens = sample.tokens.tolist()
    return [tokens[:count] for count in range(len(tokens) + 1)]


@pytest.mark.parametrize("strings", [(), ("\n\n", "")])
def test_there_must_be_something_to_find(strings):
    with pytest.raises(ConfigError, match="not empty"):
        StopStrings(strings=strings, decode=decode)
