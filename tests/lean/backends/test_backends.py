from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from fdjax.errors import ConfigError
from fdjax.lean import FakeBackend, WasmBackend
from fdjax.lean.backends import choice
from fdjax.lean.backends.choice import (
    BackendKind,
    BackendName,
    BackendOptions,
    backend_factory,
    backend_kind,
    check_options,
)

PROJECT = BackendOptions(project=Path("lake"))
SERVER = BackendOptions(url="http://127.0.0.1:8000", token_env="TOKEN")
KINDS = {
    "here": BackendKind(make=lambda options: FakeBackend, needs=("project",)),
    "there": BackendKind(
        make=lambda options: FakeBackend, needs=("url",), takes=("token_env",)
    ),
    "away": BackendKind(make=lambda options: FakeBackend, needs=("url",)),
}


def test_every_name_has_a_backend():
    assert set(get_args(BackendName)) == set(choice._KINDS)
    options = {field.name for field in fields(BackendOptions)}
    for name in get_args(BackendName):
        kind = backend_kind(name)
        assert {*kind.takes, *kind.needs} <= options


def test_factories_make_backends_of_their_own():
    assert isinstance(backend_factory("wasm")(), WasmBackend)
    factory = backend_factory("fake")
    assert factory() is not factory()


def test_options_that_fit():
    check_options("here", PROJECT, KINDS)
    check_options("there", SERVER, KINDS)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("there", PROJECT, r"expected no --project, got lake; .*--backend here, or"),
        ("here", SERVER, r"expected --project, got nothing"),
        ("away", SERVER, r"no --token-env, got TOKEN; choose --backend there, or"),
        ("there", BackendOptions(), r"expected --url, got nothing"),
    ],
)
def test_options_that_do_not_fit(name, options, message):
    with pytest.raises(ConfigError, match=message):
        check_options(name, options, KINDS)


def test_an_option_of_no_backend_is_to_be_left_out():
    with pytest.raises(ConfigError, match=r"expected no --url, got x; leave it out\."):
        check_options("here", BackendOptions(url="x"), {"here": BackendKind(make=str)})


def test_the_token_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("TOKEN", "secret")
    assert SERVER.token() == "secret"
    assert PROJECT.token() == ""
    monkeypatch.delenv("TOKEN")
    with pytest.raises(ConfigError, match="variable TOKEN, got none; export it"):
        SERVER.token()
