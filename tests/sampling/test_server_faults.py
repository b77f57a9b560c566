"""A server that fails, is lost or is full: what becomes of requests and weights."""

import errno
import threading
import time
from concurrent.futures import CancelledError
from types import SimpleNamespace

import pytest

from fdjax import http
from fdjax.checkpoint import conversion
from fdjax.sampling import SamplingError
from sampling.engine_server import EngineServer
from sampling.on_server import (
    BOUND,
    ask,
    drawn,
    gap,
    loads,
    weights_of,
)
from serving import wait_until

_PASSING = [
    *("busy", "failing", "slow", "dropped", "half", "no_json", "fewer", "beyond"),
    *("early", "impossible", "abort", "another_shape", "too_large"),
]


@pytest.fixture(autouse=True)
def answers_of_100_kb(monkeypatch):
    """Are the largest."""
    monkeypatch.setattr(http, "LARGEST_ANSWER", 100_000)


@pytest.mark.parametrize("fault", _PASSING)
def test_a_lost_request_is_sampled_again(published, fault):
    server, sampler = published
    want = drawn(sampler)
    before = len(server.asked())
    server.faults = [fault, "", fault]
    samples = drawn(sampler)
    assert len(server.asked()) == before + 8
    for sample, same in zip(samples, want, strict=True):
        assert sample.tokens.tolist() == same.tokens.tolist()
    assert gap(1, samples) < BOUND


def test_after_its_attempts_a_request_fails_and_no_other(published):
    server, sampler = published
    server.faults = ["failing", "beyond", "failing"]
    with pytest.raises(SamplingError, match="at most 3 attempts, got 500 internal"):
        drawn(sampler, numbers=[2])
    server.faults = ["too_large"] * 3
    with pytest.raises(SamplingError, match="an answer of at most 100000 bytes"):
        drawn(sampler, numbers=[2])
    assert gap(1, drawn(sampler)) < BOUND


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
        for number, sample in enumerate(drawn(sampler))
        if sample.stop == "stop" and len(sample.tokens) > 1
    )
    before = len(server.asked())
    server.faults = [fault]
    with pytest.raises(SamplingError, match=said):
        drawn(sampler, numbers=[number])
    assert len(server.asked()) == before + 1


def test_cancelling_ends_a_request(published):
    server, sampler = published
    server.faults = ["slow"]
    [slow] = ask(sampler, numbers=[0])
    assert wait_until(lambda: not server.faults)
    assert slow.cancel()
    started = time.monotonic()
    sampler.drain()
    # Before the request's time is over, after which it would be sent again.
    assert time.monotonic() - started < 2.5
    with pytest.raises(CancelledError):
        slow.result()
    assert gap(1, drawn(sampler)) < BOUND


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
        sampler.publish(weights_of(1), version=1)
        server.delay_s, server.faults = 0.05, ["", "", "restart"]
        samples = drawn(sampler)
        assert loads(server) == 2
    assert gap(1, samples) < BOUND
    assert {sample.version for sample in samples} == {1}


def test_a_server_that_is_away_for_a_while_is_waited_for(server, opened):
    with opened(server) as sampler:
        sampler.publish(weights_of(1), version=1)
        server.stop()
        futures = ask(sampler)
        time.sleep(0.2)
        assert not any(future.done() for future in futures)
        server.start(server._folder)
        assert gap(1, [future.result(timeout=60) for future in futures]) < BOUND
        server.stop()
        thread = threading.Timer(0.2, server.start, [server._folder])
        thread.start()
        sampler.publish(weights_of(2), version=2)
        thread.join()
        assert gap(2, drawn(sampler)) < BOUND


def test_a_server_that_is_lost_for_good_fails_all_until_weights_come(vllm, opened):
    with opened(vllm) as sampler:
        sampler.publish(weights_of(1), version=1)
        vllm.model, vllm.faults = "other", ["restart"]
        errors = [future.exception(timeout=60) for future in ask(sampler)]
        assert {type(error) for error in errors} == {SamplingError}
        with pytest.raises(SamplingError, match=r"of version 1.*\['other'\] instead"):
            drawn(sampler, numbers=[0])
        vllm.model = "policy"
        sampler.publish(weights_of(2), version=2)
        assert gap(2, drawn(sampler)) < BOUND


@pytest.mark.parametrize("api", ["vllm", "sglang"])
def test_a_restart_that_nobody_saw_is_found_out(folder, opened, api):
    with EngineServer(api, folder) as server, opened(server) as sampler:
        sampler.publish(weights_of(1), version=1)
        server.restart()
        assert gap(1, drawn(sampler)) < BOUND
        assert loads(server) == 2


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
                sampler.publish(weights_of(seed), version=seed)
                assert gap(seed, drawn(sampler)) < BOUND
            server.faults = ["away"]
            assert gap(2, drawn(sampler)) < BOUND
        assert len(started) == 3
        assert started[1] == started[2] != started[0]
        with (
            opened(server, seeded=seeded) as sampler,
            pytest.raises(SamplingError, match=r"started again with each.*`restart`"),
        ):
            sampler.publish(weights_of(1), version=1)


def test_a_restart_that_does_not_return_is_given_up(folder, opened):
    with EngineServer("sglang", folder, marks=False, loads=False) as server:
        started, goes_on = [], threading.Event()

        def restart(path):
            started.append(path)
            goes_on.wait()

        with opened(server, restart, load_s=0.3) as sampler:
            for version in (1, 2):
                with pytest.raises(
                    SamplingError, match=r"`restart` to return within 0\.3 s"
                ):
                    sampler.publish(weights_of(1), version=version)
            [failed] = ask(sampler, numbers=[0])
            with pytest.raises(SamplingError, match="publish again"):
                failed.result(timeout=60)
        # Neither a second one beside it nor the end waited for it.
        assert len(started) == 1
        assert not goes_on.is_set()
        goes_on.set()


@pytest.mark.parametrize("when", ["before", "within"])
def test_weights_that_do_not_fit_the_disk_leave_nothing(
    vllm, opened, monkeypatch, when
):
    def half(target):
        target.mkdir()
        (target / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(vllm) as sampler:
        sampler.publish(weights_of(1), version=1)
        kept = [*opened.target.iterdir()]
        with monkeypatch.context() as full:
            if when == "before":
                nothing = SimpleNamespace(free=0)
                full.setattr(conversion.shutil, "disk_usage", lambda _: nothing)
            else:
                full.setattr(opened, "before_export", half)
            with pytest.raises(
                SamplingError, match=r"two versions at a time.*(free disk|space)"
            ):
                sampler.publish(weights_of(2), version=2)
        assert [*opened.target.iterdir()] == kept
        [failed] = ask(sampler, numbers=[0])
        with pytest.raises(SamplingError, match="publish again"):
            failed.result(timeout=60)
        sampler.publish(weights_of(2), version=2)
        assert gap(2, drawn(sampler)) < BOUND
