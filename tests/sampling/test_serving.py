"""Requests of other threads: taken up together, at temperatures of their own."""

import threading
from concurrent.futures import Future

import jax
import numpy as np
import pytest

from fdjax.errors import ConfigError
from fdjax.sampling import (
    SamplerClosedError,
    SamplingConfig,
    SlotSampler,
    SlotsConfig,
)
from fdjax.sampling import (
    weights as copies,
)
from fdjax.sampling.published import Published
from tiny import MODEL

PROMPT = list(range(5, 16))
SETTINGS = {"max_new_tokens": 8, "top_k": 50}


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def weights(params):
    """The same, and others."""
    return params, jax.tree.map(lambda leaf: leaf * 1.5, params)


def made(params, **changes):
    config = SlotsConfig(longest=24, slots=4, page=4)
    sampler = SlotSampler(MODEL, SamplingConfig(**(SETTINGS | changes)), config)
    sampler.publish(params, 1)
    return sampler


def ask(sampler, seed=0, **request):
    key = jax.random.key(seed)
    return sampler.submit(PROMPT, key, max_new_tokens=8, **request)


def test_whoever_serves_samples_what_other_threads_ask(params):
    sampler, until, found = made(params), Future(), []

    def asks():
        # One turn after the other, as in an episode.
        for seed in range(3):
            found.append(ask(sampler, seed).result(timeout=60))
        until.set_result(None)

    thread = threading.Thread(target=asks)
    thread.start()
    sampler.serve(until)
    thread.join()
    alone = [ask(sampler, seed) for seed in range(3)]
    sampler.drain()
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one.tokens, other.result().tokens)


def test_nothing_is_sampled_before_the_end_of_together(params):
    sampler = made(params)
    with sampler.together():
        first = ask(sampler)
        worker = threading.Thread(target=sampler.drain)
        worker.start()
        worker.join(0.1)
        assert worker.is_alive()
        second = ask(sampler, 1)
    worker.join()
    assert first.done()
    assert second.done()
    # Both were decoded by the same steps.
    longest = max(len(each.result().tokens) for each in (first, second))
    assert sampler.use().steps == longest - 1


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_a_temperature_of_its_own(params, temperature):
    """Beside a request that has the sampler's."""
    sampler = made(params)
    plain, own = ask(sampler, 1), ask(sampler, 2, temperature=temperature)
    sampler.drain()
    alike = made(params, temperature=temperature)
    want = ask(alike, 2)
    alike.drain()
    for field in ("tokens", "logprobs", "behaviour_logprobs", "entropy"):
        one, other = (getattr(each.result(), field) for each in (own, want))
        np.testing.assert_allclose(one, other, rtol=0, atol=5e-5)
    assert abs(plain.result().entropy[0] - own.result().entropy[0]) > 0.1
    with pytest.raises(ConfigError, match="temperature"):
        ask(sampler, temperature=0.0).result()


def test_weights_that_it_has_are_not_copied_again(weights, monkeypatch):
    placed = []
    place = copies.place_weights
    monkeypatch.setattr(
        copies, "place_weights", lambda *given: placed.append(1) or place(*given)
    )
    params, others = weights
    sampler = made(params)
    versions = []
    for number, given in enumerate([params, others, others, params], start=2):
        sampler.publish(given, number)
        future = ask(sampler)
        sampler.drain()
        versions.append(future.result().version)
    assert versions == [2, 3, 4, 5]
    assert len(placed) == 3
    # Pages of the prompt are known as long as the weights are.
    assert sampler.use().reused == 8


def test_equal_arrays_and_other_trees_are_other_weights(params):
    published = Published()
    assert not published.has(params)
    published.note(params)
    assert published.has({**params})
    assert not published.has({"other": params})
    assert not published.has(jax.tree.map(lambda leaf: leaf + 0, params))
    published.forget()
    assert not published.has(params)


def test_a_sampler_that_is_closed_serves_nobody(params):
    sampler, until = made(params), Future()
    threading.Timer(0.05, sampler.close).start()
    with pytest.raises(SamplerClosedError):
        sampler.serve(until)
