"""The sampler on a server, against one that samples with `Model.apply` and fails."""

import functools
import threading
import time
from concurrent.futures import CancelledError

import jax
import numpy as np
import pytest

from checkpoint.folders import write_folder
from fdjax.checkpoint import load_pretrained, save_pretrained
from fdjax.errors import ConfigError, DataError
from fdjax.model import LoRA, adapt, init_adapters
from fdjax.sampling import Sampler, SamplerClosedError, SamplingConfig, SamplingError
from fdjax.sampling.server import ServerConfig, ServerSampler
from sampling.engine_server import EOS, WIDTH, EngineServer
from serving import wait_until
from tiny import MODEL, mesh_of

_TAU, _STOPS = 0.8, (2, 3, *range(100, 140))
_BOUND = 1e-3
"""Of a log-probability: a forward in float32 here and there. 2e-6 was seen."""
_LOADS = ("/collective_rpc", "/update_weights_from_disk")
_PROMPTS = [list(range(5, 6 + n)) for n in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model that servers are started with."""
    path = tmp_path_factory.mktemp("base") / "model"
    return write_folder(path, MODEL.config, dtype="float32")


@pytest.fixture(params=["vllm", "sglang"])
def server(request, folder):
    with EngineServer(request.param, folder) as server:
        yield server


@pytest.fixture
def vllm(folder):
    with EngineServer("vllm", folder) as server:
        yield server


@functools.cache
def _params(seed):
    """Of a policy that leaves some things open, and not all."""
    params = jax.jit(MODEL.init)(jax.random.key(seed))
    return {**params, "embedding": params["embedding"] * 2}


def _key(number):
    return jax.random.fold_in(jax.random.key(3), number)


class _Opener:
    """Makes samplers whose servers have the weights of a folder."""

    def __init__(self, folder, target):
        self.folder, self.target = folder, target
        self.before_export = lambda: None

    def __call__(self, server, restart=None, **settings):
        def export(params, target):
            self.before_export()
            save_pretrained(params, MODEL.config, target, description=self.folder)

        sampling = SamplingConfig(
            max_new_tokens=24, temperature=_TAU, stop_tokens=_STOPS
        )
        given = {
            "base_url": server.url,
            "model": "policy",
            "folder": self.target,
            "api": server.api,
            "attempts": 4,
            "timeout_s": 30.0,
            "longest_pause_s": 0.01,
            "load_s": 20.0,
            "tolerance": _BOUND,
        }
        config = ServerConfig(**given | settings)
        return ServerSampler(MODEL, sampling, config, export, restart)


@pytest.fixture
def opened(folder, tmp_path):
    return _Opener(folder, tmp_path / "exports")


@pytest.fixture(scope="module", params=["vllm", "sglang"])
def published(request, folder, tmp_path_factory):
    """A server and its sampler, with the weights of seed 1."""
    target = tmp_path_factory.mktemp("published")
    seen_as = target.with_name(f"{target.name}-as-the-server-sees-it")
    seen_as.symlink_to(target)
    with (
        EngineServer(request.param, folder) as server,
        _Opener(folder, target)(
            server, timeout_s=3.0, attempts=3, seen_as=str(seen_as)
        ) as sampler,
    ):
        sampler.publish(_params(1), version=1)
        yield server, sampler


def _ask(sampler, numbers=range(6), budget=12):
    return [
        sampler.submit(_PROMPTS[number], _key(number), max_new_tokens=budget)
        for number in numbers
    ]


def _samples(sampler, **asked):
    return [future.result(timeout=60) for future in _ask(sampler, **asked)]


def _gap(seed, samples, prompts=_PROMPTS):
    """The largest distance of log-probabilities from those of the full forward."""
    return max(
        np.abs(_scored(seed, prompt, sample.tokens) - sample.logprobs).max()
        for sample, prompt in zip(samples, prompts, strict=True)
    )


_apply = jax.jit(MODEL.apply)


def _scored(seed, prompt, tokens):
    sequence = [*prompt, *tokens.tolist()]
    row = np.zeros((1, WIDTH), np.int32)
    row[0, : len(sequence)] = sequence
    valid = np.arange(WIDTH)[None] < len(sequence)
    logits = np.asarray(_apply(_params(seed), row, valid=valid)[0])
    logits = logits.astype(np.float64) / _TAU
    policy = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return policy[np.arange(len(prompt) - 1, len(sequence) - 1), tokens]


def test_samples_are_of_the_weights_that_were_published(server, opened):
    with opened(server) as sampler:
        assert isinstance(sampler, Sampler)
        for seed in (1, 2):
            sampler.publish(_params(seed), version=seed)
            samples = _samples(sampler)
            assert _gap(seed, samples) < _BOUND < 0.1 < _gap(3 - seed, samples)
            assert {sample.version for sample in samples} == {seed}
            assert {sample.stop for sample in samples} == {"stop", "length"}
            for sample in samples:
                stopped = sample.stop == "stop"
                assert (sample.tokens[-1] in _STOPS) == stopped
                assert len(sample.tokens) == 12 or stopped
                assert (sample.logprobs == sample.behaviour_logprobs).all()
                assert sample.entropy is None
            [kept] = opened.target.iterdir()
            loaded = load_pretrained(kept, mesh_of(), dtype="float32").params
            assert (loaded["embedding"] == _params(seed)["embedding"]).all()
    assert [*opened.target.iterdir()] == []


def test_adapters_are_exported_with_the_weights_that_they_change(vllm, opened):
    adapters = init_adapters(jax.random.key(5), _params(1), LoRA(rank=2))
    adapters = jax.tree.map(lambda leaf: leaf + 0.1, adapters)
    with opened(vllm) as sampler:
        # The probe compares what the server computes with what the trainer would.
        sampler.publish(adapt(_params(1), adapters), version=1)
        assert _gap(1, _samples(sampler)) > 0.01


def test_a_server_has_its_own_name_of_the_folder(published):
    server, _ = published
    bodies = [str(body) for path, body in server.requests if path in _LOADS]
    assert len(bodies) == 1
    assert "-as-the-server-sees-it/weights-1-" in bodies[0]


def test_a_key_is_a_seed(published):
    _, sampler = published
    first, again = _samples(sampler), _samples(sampler)
    other = sampler.submit(_PROMPTS[5], _key(99), max_new_tokens=12).result()
    for sample, same in zip(first, again, strict=True):
        assert sample.tokens.tolist() == same.tokens.tolist()
    assert other.tokens.tolist() != first[5].tokens.tolist()


def test_everything_that_changes_a_distribution_is_asked_for(vllm, opened):
    with opened(vllm) as sampler:
        sampler.publish(_params(1), version=1)
        _samples(sampler, numbers=[2])
    [body] = vllm.asked()
    assert body.pop("seed") in range(2**31)
    assert body == {
        "model": "policy",
        "prompt": _PROMPTS[2],
        "max_tokens": 12,
        "temperature": _TAU,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logprobs": 1,
        "return_token_ids": True,
        "stop_token_ids": sorted(_STOPS),
        "ignore_eos": True,
    }


_PASSING = [
    *("busy", "failing", "slow", "dropped", "half", "no_json", "fewer", "beyond"),
    *("early", "impossible", "abort", "another_shape"),
]


@pytest.mark.parametrize("fault", _PASSING)
def test_a_lost_request_is_sampled_again(published, fault):
    server, sampler = published
    want = _samples(sampler)
    before = len(server.asked())
    server.faults = [fault, "", fault]
    samples = _samples(sampler)
    assert len(server.asked()) == before + 8
    for sample, same in zip(samples, want, strict=True):
        assert sample.tokens.tolist() == same.tokens.tolist()
    assert _gap(1, samples) < _BOUND


def test_after_its_attempts_a_request_fails_and_no_other(published):
    server, sampler = published
    server.faults = ["failing", "beyond", "failing"]
    with pytest.raises(SamplingError, match="at most 3 attempts, got 500 internal"):
        _samples(sampler, numbers=[2])
    assert _gap(1, _samples(sampler)) < _BOUND


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("busy_for_long", "429 full"),
        ("no_stop", "one of the stop tokens.*--generation-config vllm"),
    ],
)
def test_what_does_not_pass_is_sent_once(published, fault, said):
    server, sampler = published
    number = next(
        number
        for number, sample in enumerate(_samples(sampler))
        if sample.stop == "stop" and len(sample.tokens) > 1
    )
    before = len(server.asked())
    server.faults = [fault]
    with pytest.raises(SamplingError, match=said):
        _samples(sampler, numbers=[number])
    assert len(server.asked()) == before + 1


def test_cancelling_ends_a_request(published):
    server, sampler = published
    server.faults = ["slow"]
    [slow] = _ask(sampler, numbers=[0])
    assert wait_until(lambda: not server.faults)
    assert slow.cancel()
    started = time.monotonic()
    sampler.drain()
    # Before the request's time is over, after which it would be sent again.
    assert time.monotonic() - started < 2.5
    with pytest.raises(CancelledError):
        slow.result()
    assert _gap(1, _samples(sampler)) < _BOUND


def test_keys_stay_out_of_errors(folder, opened, monkeypatch):
    monkeypatch.setenv("POLICY_KEY", "my-secret")
    with (
        EngineServer("vllm", folder, key="my-secret") as server,
        opened(server, key_env="POLICY_KEY") as sampler,
    ):
        sampler.publish(_params(1), version=1)
        server.key = "another"
        with pytest.raises(SamplingError, match=r"401 wrong key Bearer \[key\]"):
            _samples(sampler, numbers=[0])
    monkeypatch.delenv("POLICY_KEY")
    with pytest.raises(ConfigError, match="POLICY_KEY"):
        opened(server, key_env="POLICY_KEY")


def _loads(server):
    return sum(path in _LOADS for path, _ in server.requests)


@pytest.mark.parametrize(
    ("api", "marks"), [("vllm", True), ("vllm", False), ("sglang", True)]
)
def test_a_server_that_restarts_while_it_samples_loads_the_weights_again(
    folder, opened, api, marks
):
    with (
        EngineServer(api, folder, marks=marks) as server,
        opened(server) as sampler,
    ):
        sampler.publish(_params(1), version=1)
        server.delay_s, server.faults = 0.05, ["", "", "restart"]
        samples = _samples(sampler)
        assert _loads(server) == 2
    assert _gap(1, samples) < _BOUND
    assert {sample.version for sample in samples} == {1}


def test_a_server_that_is_away_for_a_while_is_waited_for(server, opened):
    with opened(server) as sampler:
        sampler.publish(_params(1), version=1)
        server.stop()
        futures = _ask(sampler)
        time.sleep(0.2)
        assert not any(future.done() for future in futures)
        server.start(server._folder)
        assert _gap(1, [future.result(timeout=60) for future in futures]) < _BOUND
        server.stop()
        thread = threading.Timer(0.2, server.start, [server._folder])
        thread.start()
        sampler.publish(_params(2), version=2)
        thread.join()
        assert _gap(2, _samples(sampler)) < _BOUND


def test_a_server_that_is_lost_for_good_fails_all_until_weights_come(vllm, opened):
    with opened(vllm) as sampler:
        sampler.publish(_params(1), version=1)
        vllm.model, vllm.faults = "other", ["restart"]
        errors = [future.exception(timeout=60) for future in _ask(sampler)]
        assert {type(error) for error in errors} == {SamplingError}
        with pytest.raises(SamplingError, match=r"of version 1.*\['other'\] instead"):
            _samples(sampler, numbers=[0])
        vllm.model = "policy"
        sampler.publish(_params(2), version=2)
        assert _gap(2, _samples(sampler)) < _BOUND


@pytest.mark.parametrize("api", ["vllm", "sglang"])
def test_a_restart_that_nobody_saw_is_found_out(folder, opened, api):
    with EngineServer(api, folder) as server, opened(server) as sampler:
        sampler.publish(_params(1), version=1)
        server.restart()
        assert _gap(1, _samples(sampler)) < _BOUND
        assert _loads(server) == 2


@pytest.mark.parametrize("api", ["vllm", "sglang"])
def test_a_server_that_loads_nothing_is_started_again(folder, opened, api):
    """As vLLM on TPUs, which takes no seed either, and SGLang-JAX."""
    with EngineServer(api, folder, marks=False, loads=False) as server:
        started = []

        def restart(path):
            started.append(path)
            server.restart(path)

        seeded = api == "sglang"
        with opened(server, restart, seeded=seeded) as sampler:
            for seed in (1, 2):
                sampler.publish(_params(seed), version=seed)
                assert _gap(seed, _samples(sampler)) < _BOUND
            server.faults = ["away"]
            assert _gap(2, _samples(sampler)) < _BOUND
        assert len(started) == 3
        assert started[1] == started[2] != started[0]
        with (
            opened(server, seeded=seeded) as sampler,
            pytest.raises(SamplingError, match=r"started again with each.*`restart`"),
        ):
            sampler.publish(_params(1), version=1)


@pytest.mark.parametrize("api", ["vllm", "sglang"])
def test_log_probabilities_before_the_temperature_are_refused(folder, opened, api):
    with (
        EngineServer(api, folder, raw=True) as server,
        opened(server) as sampler,
        pytest.raises(SamplingError, match="processed_logprobs"),
    ):
        sampler.publish(_params(1), version=1)


def test_weights_that_a_server_only_says_it_has_are_refused(folder, opened):
    """Its prefix cache is that of the old ones."""
    with (
        EngineServer("vllm", folder, forgets=False) as server,
        opened(server) as sampler,
    ):
        with pytest.raises(SamplingError, match="it has other weights"):
            sampler.publish(_params(1), version=1)
        [failed] = _ask(sampler, numbers=[0])
        with pytest.raises(SamplingError, match="publish again"):
            failed.result(timeout=60)
        server.forgets = True
        sampler.publish(_params(2), version=2)
        assert _gap(2, _samples(sampler)) < _BOUND


def test_another_model_is_named(server, opened):
    with opened(server) as sampler:
        server.model = "other"
        with pytest.raises(SamplingError, match=r"\['other'\] instead of 'policy'"):
            sampler.publish(_params(1), version=1)
        server.model = "policy"
        sampler.publish(_params(1), version=1)
        if server.api == "vllm":
            server.faults = ["another_model"] * 4
            with pytest.raises(SamplingError, match="'other' instead of an answer of"):
                _samples(sampler, numbers=[0])


def test_publish_waits_for_what_was_submitted_before(server, opened):
    with opened(server, concurrency=2) as sampler:
        sampler.publish(_params(1), version=1)
        server.delay_s = 0.2
        old, late, waited = _ask(sampler), [], []

        def submit():
            waited.extend(future.done() for future in old)
            late.extend(_ask(sampler))

        opened.before_export = submit
        sampler.publish(_params(2), version=2)
        assert waited == [True] * 6
        old = [future.result(timeout=0) for future in old]
        late = [future.result(timeout=60) for future in late]
    assert _gap(1, old) < _BOUND
    assert _gap(2, late) < _BOUND
    assert [{sample.version for sample in each} for each in (old, late)] == [{1}, {2}]


def test_closing_fails_what_is_pending(server, opened):
    sampler = opened(server)
    [early] = _ask(sampler, numbers=[0])
    with pytest.raises(ConfigError, match="call publish first"):
        early.result(timeout=60)
    sampler.publish(_params(1), version=1)
    server.faults = ["slow"] * 6
    futures = _ask(sampler)
    sampler.close()
    sampler.close()
    for future in [*futures, *_ask(sampler)]:
        with pytest.raises(SamplerClosedError, match="make another"):
            future.result(timeout=0)
    for call in (sampler.drain, lambda: sampler.publish(_params(1), 1)):
        with pytest.raises(SamplerClosedError):
            call()


def test_a_request_that_cannot_be_served_fails_alone(vllm, opened):
    with opened(vllm) as sampler:
        sampler.publish(_params(1), version=1)
        long = list(range(5, 5 + 110))
        refused = [
            (sampler.submit([], _key(0), max_new_tokens=4), DataError, "token ids"),
            (sampler.submit([999], _key(0), max_new_tokens=4), DataError, "999"),
            (sampler.submit([5], _key(0), max_new_tokens=99), ConfigError, "1 to 24"),
            (sampler.submit(long, _key(0), max_new_tokens=24), DataError, "110 \\+ 24"),
            # Within the model's positions, but not within the server's limit.
            (sampler.submit(long, _key(0), max_new_tokens=8), SamplingError, "400"),
        ]
        for future, kind, said in refused:
            with pytest.raises(kind, match=said):
                future.result(timeout=60)
        assert _gap(1, _samples(sampler)) < _BOUND


def test_the_end_of_text_is_no_stop_token_of_ours(folder, opened):
    """vLLM is told to ignore it; SGLang cannot be, and a sample of it is refused."""
    params = dict(_params(1))
    assert EOS not in _STOPS
    params["embedding"] = params["embedding"].at[EOS].mul(8.0)
    with EngineServer("sglang", folder) as server, opened(server) as sampler:
        sampler.publish(params, version=1)
        errors = [future.exception(timeout=60) for future in _ask(sampler)]
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
