"""The sampler of a run: its share of the memory, when it has it, and who it may be."""

import gc
import math
import re
from contextlib import closing
from dataclasses import replace

import jax
import pytest

from fdjax.checkpoint import load_pretrained
from fdjax.errors import ConfigError
from fdjax.feedback import ConstantFeedback
from fdjax.judge import Judgement
from fdjax.metrics import read_metrics
from fdjax.model import LoRA, adapt, init_adapters
from fdjax.run import (
    Arm,
    AttemptsConfig,
    EvaluationConfig,
    PolicyConfig,
    RunConfig,
    Task,
    experiment,
    read_probes,
    recipe,
)
from fdjax.run.config import SamplerConfig
from fdjax.run.memory import sampler_bytes
from fdjax.run.policy import described_policy
from fdjax.run.sampler import make_sampler
from fdjax.sampling.server import ServerConfig
from fdjax.sharding import make_mesh
from fdjax.train import FD, OptimizerConfig, PhaseConfig
from sampling.engine_server import EngineServer
from tiny import PROBLEMS

LORA = LoRA(rank=2)


class Even:
    """1 for an even number of characters."""

    async def judge(self, attempts):
        return [Judgement(reward=float(len(text) % 2 == 0)) for _, text in attempts]


def task(context):
    return Task(
        problems=PROBLEMS[:4],
        evaluation=PROBLEMS[4:6],
        judge=Even(),
        writer=ConstantFeedback(text="hint"),
    )


def arms(config):
    phase = PhaseConfig(
        name="fd",
        terms=(FD(),),
        steps=2,
        optimizer=OptimizerConfig(learning_rate=1e-2),
    )
    return (Arm(name="fd", phases=(phase,)),)


def config(policy, runs):
    return RunConfig(
        name="own",
        runs=runs,
        policy=PolicyConfig(source=str(policy), dtype="float32"),
        attempts=AttemptsConfig(
            problems=4, group_size=2, max_new_tokens=8, feedback_tokens=16
        ),
        evaluation=EvaluationConfig(every=1, samples=1, ks=(1,)),
    )


def run(given, *flags):
    return experiment(given, task=task, arms=arms, arguments=list(flags))


def said(capsys):
    return re.sub(r"\s+", " ", capsys.readouterr().out)


def on_devices():
    """Bytes of all arrays on each device."""
    held = dict.fromkeys(jax.devices(), 0)
    gc.collect()
    for array in jax.live_arrays():
        # Not by its shards: each is an array of its own once it was looked at.
        part = math.prod(array.sharding.shard_shape(array.shape))
        for device in array.sharding.device_set:
            held[device] += part * array.dtype.itemsize
    return held


@pytest.mark.parametrize("lora", [None, LORA], ids=["all parameters", "adapters"])
@pytest.mark.parametrize("tensor", [1, 2])
def test_the_plans_figures_are_what_is_allocated(policy, tmp_path, lora, tensor):
    given = replace(config(policy, tmp_path), sampler=SamplerConfig(tensor=tensor))
    given = replace(given, policy=replace(given.policy, dtype="bfloat16", lora=lora))
    mesh = make_mesh(data=1, fsdp=8)
    described = described_policy(given.policy, mesh)
    params = load_pretrained(policy, mesh).params
    if lora is not None:
        params = adapt(params, init_adapters(jax.random.key(0), params, lora))
    before = on_devices()
    with closing(make_sampler(given, task(None), described, mesh, 40)) as sampler:
        planned = sampler_bytes(sampler, described.model, lora)
        assert set(planned) == {"weights", "pages"}
        assert on_devices() == before
        sampler.publish(params, 0)
        now = on_devices()
        taken = {device: now[device] - before[device] for device in now}
        assert set(taken.values()) == {sum(planned.values())}
        sampler.rest()
        assert on_devices() == before


def test_memory_is_planned_with_the_sampler(policy, tmp_path, capsys):
    assert run(config(policy, tmp_path), "--dry-run") == 0
    note = said(capsys)
    assert re.search(
        r"In a step gradients and activations come on top, while sampling the "
        r"sampler's weights \d+\.\d\d, pages \d+\.\d\d instead: \d+\.\d\d\.",
        note,
    )


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("sampler:slots", "--sampler.tensor", "8"), "2 heads, 2 key-value heads, 32"),
        (("sampler:slots", "--sampler.tensor", "3"), "8 devices, .*got 3: 2 is the"),
    ],
)
def test_weights_that_cannot_be_shared_so_are_refused(
    policy, tmp_path, capsys, flags, text
):
    assert run(config(policy, tmp_path), "--dry-run", *flags) == 2
    assert re.search(
        f"expected sampler.tensor to divide each of .*{text}", said(capsys)
    )


# On a server


def on(server, folder, *more):
    return (
        *("sampler:server", "--sampler.base-url", server, "--sampler.model", "policy"),
        *("--sampler.folder", str(folder), *more),
    )


@pytest.fixture(scope="module")
def finished(policy, tmp_path_factory):
    """A run on a server of vLLM, and how often that loaded weights."""
    runs = tmp_path_factory.mktemp("runs")
    with EngineServer("vllm", policy) as server:
        assert run(config(policy, runs), *on(server.url, runs / "exports")) == 0
        paths = [path for path, _ in server.requests]
    return runs / "own", paths.count("/collective_rpc")


def test_a_run_samples_on_a_server(finished):
    """FD on the tokens of a server that loads what each iteration exports."""
    folder, loads = finished
    # The pretrained policy as it is and as a state has it; the policy after each step
    # and the frozen teacher, for two measurements.
    assert loads == 6
    rows = read_metrics(folder / "metrics.jsonl")
    assert [row["arm"] for row in rows] == ["fd", "fd"]
    for row in rows:
        # Seen: 1e-6, a forward in float32 here and there.
        assert 0 < row["rollout/logprob_gap"] <= row["rollout/logprob_gap_max"] < 1e-3
        assert row["train/loss"] > 0
    samples = read_metrics(folder / "samples.jsonl")
    assert len(samples) == 16
    assert {row["feedback"] for row in samples} == {"hint"}
    probes = read_probes(folder / "probes.jsonl")
    assert [row["step"] for row in probes] == [0, 0, 1, 1, 2, 2]
    # What was exported goes with the run.
    assert [*(folder.parent / "exports").iterdir()] == []


def test_a_server_is_in_the_plan_and_asked_nothing(policy, tmp_path, capsys):
    flags = on("http://localhost:1", tmp_path / "exports")
    assert run(config(policy, tmp_path / "runs"), "--dry-run", *flags) == 0
    note = said(capsys)
    assert '"base_url": "http://localhost:1"' in note
    assert "the sampler's memory is the server's" in note
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ((), ("--sampler.key-env", "NO_SUCH_KEY"), "environment variable NO_SUCH_KEY"),
        ((), ("--sampler.probe", "999"), "ServerConfig.probe below"),
        (
            ("--attempts.stop-strings", "."),
            (),
            "stop_strings with a server",
        ),
    ],
)
def test_what_a_server_cannot_do_is_said_before_any_work(
    policy, tmp_path, capsys, monkeypatch, before, after, text
):
    monkeypatch.setattr(recipe, "load_pretrained", None)
    flags = (*before, *on("http://localhost:1", tmp_path / "exports", *after))
    for dry in ((), ("--dry-run",)):
        assert run(config(policy, tmp_path / "runs"), *dry, *flags) == 2
        assert text in said(capsys)
    assert not (tmp_path / "exports").exists()


def test_several_processes_have_no_server(policy, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    mesh = make_mesh(fsdp=8)
    given = config(policy, tmp_path)
    settings = ServerConfig(base_url="http://a", model="m", folder=tmp_path)
    described = described_policy(given.policy, mesh)
    with pytest.raises(ConfigError, match="one process with a ServerSampler, got 2"):
        make_sampler(replace(given, sampler=settings), task(None), described, mesh, 40)


def test_a_resumed_run_may_find_its_server_elsewhere(finished, policy, capsys):
    folder, _ = finished
    given = config(policy, folder.parent)
    moved = on("http://elsewhere", folder.parent / "other")
    assert run(given, "--resume", *moved) == 0
    assert run(given, "--resume", *moved, "--sampler.no-seeded") == 2
    assert "sampler.seeded was True, now False" in said(capsys)
