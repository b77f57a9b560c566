"""The sampler on a server, against one that samples with `Model.apply`."""

import jax
import pytest

from fdjax.checkpoint import load_pretrained
from fdjax.errors import ConfigError, DataError
from fdjax.model import LoRA, adapt, init_adapters
from fdjax.sampling import Sampler, SamplerClosedError, SamplingConfig, SamplingError
from fdjax.sampling.server import ServerConfig, ServerSampler
from sampling.engine_server import EOS, EngineServer
from sampling.on_server import (
    BOUND,
    LOADS,
    PROMPTS,
    STOPS,
    TAU,
    ask,
    drawn,
    gap,
    key,
    weights_of,
)
from tiny import MODEL, mesh_of


def test_samples_are_of_the_weights_that_were_published(server, opened):
    with opened(server) as sampler:
        assert isinstance(sampler, Sampler)
        for seed in (1, 2):
            sampler.publish(weights_of(seed), version=seed)
            samples = drawn(sampler)
            assert gap(seed, samples) < BOUND < 0.1 < gap(3 - seed, samples)
            assert {sample.version for sample in samples} == {seed}
            assert {sample.stop for sample in samples} == {"stop", "length"}
            for sample in samples:
                stopped = sample.stop == "stop"
                assert (sample.tokens[-1] in STOPS) == stopped
                assert len(sample.tokens) == 12 or stopped
                assert (sample.logprobs == sample.behaviour_logprobs).all()
                assert sample.entropy is None
            [kept] = opened.target.iterdir()
            loaded = load_pretrained(kept, mesh_of(), dtype="float32").params
            assert (loaded["embedding"] == weights_of(seed)["embedding"]).all()
    assert [*opened.target.iterdir()] == []


def test_adapters_are_exported_with_the_weights_that_they_change(vllm, opened):
    adapters = init_adapters(jax.random.key(5), weights_of(1), LoRA(rank=2))
    adapters = jax.tree.map(lambda leaf: leaf + 0.1, adapters)
    with opened(vllm) as sampler:
        # The probe compares what the server computes with what the trainer would.
        sampler.publish(adapt(weights_of(1), adapters), version=1)
        assert gap(1, drawn(sampler)) > 0.01


def test_a_server_has_its_own_name_of_the_folder(published):
    server, _ = published
    bodies = [str(body) for path, body in server.requests if path in LOADS]
    assert len(bodies) == 1
    assert "-as-the-server-sees-it/weights-1-" in bodies[0]


def test_a_key_is_a_seed(published):
    _, sampler = published
    first, again = drawn(sampler), drawn(sampler)
    other = sampler.submit(PROMPTS[5], key(99), max_new_tokens=12).result()
    for sample, same in zip(first, again, strict=True):
        assert sample.tokens.tolist() == same.tokens.tolist()
    assert other.tokens.tolist() != first[5].tokens.tolist()


def test_everything_that_changes_a_distribution_is_asked_for(vllm, opened):
    with opened(vllm) as sampler:
        sampler.publish(weights_of(1), version=1)
        drawn(sampler, numbers=[2])
    [body] = vllm.asked()
    assert body.pop("seed") in range(2**31)
    assert body == {
        "model": "policy",
        "prompt": PROMPTS[2],
        "max_tokens": 12,
        "temperature": TAU,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logprobs": 1,
        "return_token_ids": True,
        "stop_token_ids": sorted(STOPS),
        "ignore_eos": True,
    }


def test_keys_stay_out_of_errors(folder, opened, monkeypatch):
    monkeypatch.setenv("POLICY_KEY", "my-secret")
    with (
        EngineServer("vllm", folder, key="my-secret") as server,
        opened(server, key_env="POLICY_KEY") as sampler,
    ):
        sampler.publish(weights_of(1), version=1)
        server.key = "another"
        with pytest.raises(SamplingError, match=r"401 wrong key Bearer \[key\]"):
            drawn(sampler, numbers=[0])
    monkeypatch.delenv("POLICY_KEY")
    with pytest.raises(ConfigError, match="POLICY_KEY"):
        opened(server, key_env="POLICY_KEY")


@pytest.mark.parametrize("api", ["vllm", "sglang"])
def test_log_probabilities_before_the_temperature_are_refused(folder, opened, api):
    with (
        EngineServer(api, folder, raw=True) as server,
        opened(server) as sampler,
        pytest.raises(SamplingError, match="processed_logprobs"),
    ):
        sampler.publish(weights_of(1), version=1)


def test_weights_that_a_server_only_says_it_has_are_refused(folder, opened):
    """Its prefix cache is that of the old ones."""
    with (
        EngineServer("vllm", folder, forgets=False) as server,
        opened(server) as sampler,
    ):
        with pytest.raises(SamplingError, match="it has other weights"):
            sampler.publish(weights_of(1), version=1)
        [failed] = ask(sampler, numbers=[0])
        with pytest.raises(SamplingError, match="publish again"):
            failed.result(timeout=60)
        server.forgets = True
        sampler.publish(weights_of(2), version=2)
        assert gap(2, drawn(sampler)) < BOUND


def test_another_model_is_named(server, opened):
    with opened(server) as sampler:
        server.model = "other"
        with pytest.raises(SamplingError, match=r"\['other'\] instead of 'policy'"):
            sampler.publish(weights_of(1), version=1)
        server.model = "policy"
        sampler.publish(weights_of(1), version=1)
        if server.api == "vllm":
            server.faults = ["another_model"] * 4
            with pytest.raises(SamplingError, match="'other' instead of an answer of"):
                drawn(sampler, numbers=[0])


def test_publish_waits_for_what_was_submitted_before(server, opened):
    with opened(server, concurrency=2) as sampler:
        sampler.publish(weights_of(1), version=1)
        server.delay_s = 0.2
        old, late, waited = ask(sampler), [], []

        def submit(_):
            waited.extend(future.done() for future in old)
            late.extend(ask(sampler))

        opened.before_export = submit
        sampler.publish(weights_of(2), version=2)
        assert waited == [True] * 6
        old = [future.result(timeout=0) for future in old]
        late = [future.result(timeout=60) for future in late]
    assert gap(1, old) < BOUND
    assert gap(2, late) < BOUND
    assert [{sample.version for sample in each} for each in (old, late)] == [{1}, {2}]


def test_closing_fails_what_is_pending(server, opened):
    sampler = opened(server)
    [early] = ask(sampler, numbers=[0])
    with pytest.raises(ConfigError, match="call publish first"):
        early.result(timeout=60)
    sampler.publish(weights_of(1), version=1)
    server.faults = ["slow"] * 6
    futures = ask(sampler)
    sampler.close()
    sampler.close()
    for future in [*futures, *ask(sampler)]:
        with pytest.raises(SamplerClosedError, match="make another"):
            future.result(timeout=0)
    for call in (sampler.drain, lambda: sampler.publish(weights_of(1), 1)):
        with pytest.raises(SamplerClosedError):
            call()


def test_a_request_that_cannot_be_served_fails_alone(vllm, opened):
    with opened(vllm) as sampler:
        sampler.publish(weights_of(1), version=1)
        long = list(range(5, 5 + 110))
        refused = [
            (sampler.submit([], key(0), max_new_tokens=4), DataError, "token ids"),
            (sampler.submit([999], key(0), max_new_tokens=4), DataError, "999"),
            (sampler.submit([5], key(0), max_new_tokens=99), ConfigError, "1 to 24"),
            (sampler.submit(long, key(0), max_new_tokens=24), DataError, "110 \\+ 24"),
            # Within the model's positions, but not within the server's limit.
            (sampler.submit(long, key(0), max_new_tokens=8), SamplingError, "400"),
        ]
        for future, kind, said in refused:
            with pytest.raises(kind, match=said):
                future.result(timeout=60)
        assert gap(1, drawn(sampler)) < BOUND


def test_the_end_of_text_is_no_stop_token_of_ours(folder, opened):
    """vLLM is told to ignore it; SGLang cannot be, and a sample of it is refused."""
    params = dict(weights_of(1))
    assert EOS not in STOPS
    params["embedding"] = params["embedding"].at[EOS].mul(8.0)
    with EngineServer("sglang", folder) as server, opened(server) as sampler:
        sampler.publish(params, version=1)
        errors = [future.exception(timeout=60) for future in ask(sampler)]
        assert any("stops at others of its own" in str(error) for error in errors)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"base_url": "policy:8000"}, "http"),
        ({"probe": ()}, "probe"),
        ({"attempts": 0}, "attempts"),
    ],
)
def test_settings_are_checked(tmp_path, settings, said):
    given = {"base_url": "http://localhost:1", "model": "m", "folder": tmp_path}
    with pytest.raises(ConfigError, match=said):
        ServerConfig(**given | settings)


@pytest.mark.parametrize(
    ("sampling", "settings", "said"),
    [
        ({"top_k": 4}, {}, "top_k=0"),
        ({"top_p": 0.9}, {}, "top_p=1"),
        ({"min_p": 0.1}, {}, "min_p=0"),
        ({"stop_tokens": (304,)}, {}, "304"),
        ({}, {"probe": (999,)}, "999"),
    ],
)
def test_what_no_server_can_do_is_refused(tmp_path, sampling, settings, said):
    config = ServerConfig(
        base_url="http://localhost:1", model="m", folder=tmp_path, **settings
    )
    sampling = SamplingConfig(max_new_tokens=4, **sampling)
    with pytest.raises(ConfigError, match=said):
        ServerSampler(MODEL, sampling, config, lambda params, folder: None)
