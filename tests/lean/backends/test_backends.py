import pickle
from pathlib import Path

import pytest

from fdjax.errors import ConfigError
from fdjax.lean import (
    FakeBackend,
    NativeBackend,
    RemoteBackend,
    ReplBackend,
    Verifier,
    WasmBackend,
)
from fdjax.lean.backends.config import (
    Embedded,
    Fake,
    Kimina,
    Native,
    Remote,
    Repl,
    environment_token,
)
from fdjax.lean.backends.kimina import KiminaBackend
from fdjax.lean.backends.ray import RayBackend
from lean.corpus import TRUE

PROJECT = Path("lake")
URL = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (Embedded(), WasmBackend),
        (Native(project=PROJECT), NativeBackend),
        (Repl(project=PROJECT), ReplBackend),
        (Kimina(url=URL), KiminaBackend),
        (Remote(url=URL), RemoteBackend),
        (Fake(), FakeBackend),
    ],
)
def test_configs_make_backends_of_their_own(config, kind):
    first, second = config.make(), config.make()
    assert type(first) is type(second) is kind
    assert first is not second
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize(
    ("config", "memory_mb"),
    [
        (Embedded(), 2048),
        (Native(project=PROJECT), 8192),
        (Repl(project=PROJECT), 8192),
        (Kimina(url=URL), 2048),
        (Remote(url=URL), 2048),
        (Fake(), 2048),
    ],
)
def test_the_memory_that_suits_a_backend(config, memory_mb):
    assert config.default_memory_mb == memory_mb


def test_a_verifier_takes_what_makes_them():
    with Verifier(Fake().make, workers=2) as verifier:
        [verdict] = verifier.verify([(TRUE, "  trivial")])
    assert verdict.verified


def test_backends_of_one_config_share_their_actors():
    config = Fake()
    first, second = RayBackend(config.make), RayBackend(config.make)
    assert first._is_like(second)
    assert not first._is_like(RayBackend(Embedded().make))


@pytest.mark.parametrize("kind", [Kimina, Remote])
@pytest.mark.parametrize("url", ["", "h", "ftp://h", "http://h:0"])
def test_an_address_is_needed(kind, url):
    with pytest.raises(ConfigError, match=f"got '{url}'; correct the address"):
        kind(url=url)


@pytest.mark.parametrize("kind", [Kimina, Remote])
def test_the_token_comes_from_the_environment(monkeypatch, kind):
    config = kind(url=URL, token_env="TOKEN")
    monkeypatch.delenv("TOKEN", raising=False)
    message = rf"^{kind.__name__}\.token_env: .* variable TOKEN, got none; export it"
    with pytest.raises(ConfigError, match=message):
        config.make()
    monkeypatch.setenv("TOKEN", "secret\n")
    assert environment_token("TOKEN", "--token-env") == "secret"
    assert "secret" not in repr(config)
    config.make()
