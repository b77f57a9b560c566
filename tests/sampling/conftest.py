"""Servers for the tests of `ServerSampler`, and samplers on them."""

import pytest

from checkpoint.folders import write_folder
from sampling.engine_server import EngineServer
from sampling.on_server import Opener, weights_of
from tiny import MODEL


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


@pytest.fixture
def opened(folder, tmp_path):
    return Opener(folder, tmp_path / "exports")


@pytest.fixture(scope="module", params=["vllm", "sglang"])
def published(request, folder, tmp_path_factory):
    """A server and its sampler, with the weights of seed 1."""
    target = tmp_path_factory.mktemp("published")
    seen_as = target.with_name(f"{target.name}-as-the-server-sees-it")
    seen_as.symlink_to(target)
    with (
        EngineServer(request.param, folder) as server,
        Opener(folder, target)(
            server, timeout_s=3.0, attempts=3, seen_as=str(seen_as)
        ) as sampler,
    ):
        sampler.publish(weights_of(1), version=1)
        yield server, sampler
