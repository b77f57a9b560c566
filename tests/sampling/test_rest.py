"""Between rollouts: memory is given back, allocated anew, and nothing else changes."""

import gc
import logging
import math
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from fdjax.errors import ConfigError
from fdjax.model import LoRA, adapt, init_adapters, split
from fdjax.sampling import (
    SamplerClosedError,
    SamplingConfig,
    SlotSampler,
    SlotsConfig,
    weights,
)
from fdjax.sharding import make_mesh
from tiny import MODEL

PROMPT = list(range(5, 16))


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def policies(params):
    """Two policies on one base."""
    adapters = init_adapters(jax.random.key(1), params, LoRA(rank=2))
    return [
        adapt(params, jax.tree.map(partial(jnp.add, shift), adapters))
        for shift in (0.1, 0.3)
    ]


def made(mesh=None):
    sampling = SamplingConfig(max_new_tokens=8, top_k=50)
    return SlotSampler(MODEL, sampling, SlotsConfig(longest=24, slots=8, page=4), mesh)


def asked(sampler):
    return [
        sampler.submit(PROMPT, jax.random.key(seed), max_new_tokens=8)
        for seed in range(3)
    ]


def tokens(sampler):
    futures = asked(sampler)
    sampler.drain()
    return [future.result(timeout=0).tokens.tolist() for future in futures]


def held():
    """Bytes of all arrays on the first device."""
    gc.collect()
    return sum(
        math.prod(array.sharding.shard_shape(array.shape)) * array.dtype.itemsize
        for array in jax.live_arrays()
        if jax.devices()[0] in array.sharding.device_set
    )


@pytest.mark.parametrize("axes", [None, {"data": 4, "tensor": 2}])
def test_a_sampler_that_rests_holds_nothing_and_goes_on(axes, params, caplog):
    mesh = axes and make_mesh(**axes)
    before = held()
    sampler = made(mesh)
    assert held() == before
    sampler.publish(params, 1)
    want, whole = tokens(sampler), held()
    assert whole > before
    use = sampler.use()
    sampler.rest()
    sampler.rest()
    assert held() == before
    caplog.set_level(logging.INFO)
    with jax.log_compiles():
        for _ in range(2):
            # The very same arrays: their copy is gone all the same.
            sampler.publish(params, 1)
            assert held() == whole
            assert tokens(sampler) == want
            sampler.rest()
    compiled = [
        record.getMessage()
        for record in caplog.records
        if record.getMessage().startswith("Compiling")
    ]
    assert compiled == []
    assert sampler.use().programs == use.programs
    # What pages held is forgotten with them.
    assert sampler.use().computed == 3 * use.computed


def test_what_was_submitted_is_sampled_before_the_rest(params):
    sampler = made()
    sampler.publish(params, 1)
    early = asked(sampler)
    sampler.rest()
    assert all(future.done() for future in early)
    [late, *_] = asked(sampler)
    with pytest.raises(ConfigError, match="call publish first"):
        sampler.step()
    sampler.publish(params, 2)
    sampler.drain()
    assert early[0].result().version == 1
    assert late.result().version == 2
    assert late.result().tokens.tolist() == early[0].result().tokens.tolist()


def test_a_base_is_copied_once_for_all_adapters_on_it(params, policies, monkeypatch):
    placed, place = [], weights.place_weights

    def noting(model, given):
        placed.append("adapters" if "embedding" not in given else "base")
        return place(model, given)

    monkeypatch.setattr(weights, "place_weights", noting)
    sampler = made()
    found = []
    for policy in (params, *policies):
        sampler.publish(policy, 1)
        found.append(tokens(sampler))
    assert placed == ["base", "adapters", "adapters"]
    sampler.rest()
    sampler.publish(policies[0], 1)
    assert placed[3:] == ["base", "adapters"]
    sampler.publish(jax.tree.map(lambda leaf: leaf + 0, policies[1]), 1)
    assert placed[5:] == ["base", "adapters"]
    fresh = []
    for policy in (params, *policies):
        alone = made()
        alone.publish(policy, 1)
        fresh.append(tokens(alone))
    assert found == fresh
    assert found[0] != found[1] != found[2]


def test_parameters_come_apart_and_together_again(params, policies):
    base, adapters = split(policies[0])
    for one, other in zip(jax.tree.leaves(base), jax.tree.leaves(params), strict=True):
        assert one is other
    again = adapt(base, adapters)
    assert jax.tree.structure(again) == jax.tree.structure(policies[0])
    assert split(params) == (params, None)


def test_after_a_breakdown_new_weights_begin_anew(params):
    """As after Ctrl-C in the middle of a step: pages may be lost by then."""
    sampler = made()
    sampler.publish(params, 1)
    want = tokens(sampler)

    def interrupted(*_):
        raise KeyboardInterrupt

    run, sampler._run = sampler._run, interrupted
    futures = asked(sampler)
    with pytest.raises(KeyboardInterrupt):
        sampler.drain()
    sampler._run = run
    late = asked(sampler)
    for future in [*futures, *late]:
        with pytest.raises(
            SamplerClosedError, match=r"KeyboardInterrupt.*publish weights to go on"
        ):
            future.result(timeout=0)
    for call in (sampler.step, sampler.rest):
        with pytest.raises(SamplerClosedError, match="publish weights to go on"):
            call()
    sampler.publish(params, 1)
    assert tokens(sampler) == want
    sampler.close()
    with pytest.raises(SamplerClosedError, match="make another"):
        sampler.publish(params, 1)


def test_devices_that_cannot_share_the_weights_are_refused_at_once():
    with pytest.raises(ConfigError, match=r"kv_heads.*divisible.*'tensor': 8"):
        made(make_mesh(tensor=8))
