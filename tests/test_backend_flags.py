"""The flags `--backend`, `--project`, `--url`, `--token-env` and what they mean."""

from pathlib import Path
from typing import get_args

import pytest

from fdjax.backend_flags import BackendName, backend_of_flags
from fdjax.errors import ConfigError
from fdjax.lean.backends.config import (
    BackendConfig,
    Embedded,
    Fake,
    Kimina,
    Native,
    Remote,
    Repl,
)

PROJECT = {"project": Path("lake")}
SERVER = {"url": "http://h", "token_env": "TOKEN"}


def chosen(backend, *, project=None, url="", token_env="", **options):
    return backend_of_flags(
        backend, project=project, url=url, token_env=token_env, **options
    )


MEANINGS = {
    "wasm": ({}, Embedded()),
    "native": (PROJECT, Native(**PROJECT)),
    "repl": (PROJECT, Repl(**PROJECT)),
    "kimina": (SERVER, Kimina(**SERVER)),
    "remote": (SERVER, Remote(**SERVER)),
    "fake": ({}, Fake()),
}


def test_every_name_has_a_config_and_every_config_a_name(monkeypatch):
    monkeypatch.setenv("TOKEN", "secret")
    assert set(get_args(BackendName)) == set(MEANINGS)
    for name, (flags, config) in MEANINGS.items():
        assert chosen(name, **flags) == config
    kinds = {type(config) for _, config in MEANINGS.values()}
    assert kinds == set(get_args(BackendConfig))


def test_a_server_may_want_no_token():
    assert chosen("remote", url="http://h") == Remote(url="http://h")


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        (
            "remote",
            PROJECT,
            "expected no --project, got lake; choose --backend native or repl, or",
        ),
        (
            "native",
            SERVER,
            "expected no --url, got http://h; choose --backend kimina or remote, or",
        ),
        (
            "wasm",
            {"token_env": "TOKEN"},
            "expected no --token-env, got TOKEN; choose --backend kimina or remote, or "
            "leave it out.",
        ),
        ("native", {}, "expected --project, got nothing; say what it is to use"),
        ("repl", {}, "expected --project, got nothing; say what it is to use"),
        ("kimina", {}, "expected --url, got nothing; say what it is to use"),
        ("remote", {}, "expected --url, got nothing; say what it is to use"),
    ],
)
def test_flags_that_do_not_fit(name, flags, message):
    with pytest.raises(ConfigError, match=f"^Backend {name}: {message}"):
        chosen(name, **flags)


def test_a_name_that_is_none():
    with pytest.raises(ConfigError, match="expected --backend to be one of wasm, na"):
        chosen("lean")


def test_a_token_that_is_not_there_is_said_with_the_flag(monkeypatch):
    monkeypatch.delenv("TOKEN", raising=False)
    with pytest.raises(ConfigError, match=r"^--their-token: .*leave --their-token out"):
        chosen("remote", **SERVER, token_flag="--their-token")
