"""The flags by which a command is told its backend, as the config that they mean."""

from pathlib import Path
from typing import Literal, TypeVar, get_args

from fdjax.errors import ConfigError
from fdjax.lean.backends.config import (
    BackendConfig,
    Embedded,
    Fake,
    Kimina,
    Native,
    Remote,
    Repl,
    environment_token,
)
from fdjax.lean.facts.backend import DEFAULT_LIMITS, WALL_S, Limits
from fdjax.ranges import Among, require

__all__ = ["BackendName", "backend_of_flags", "limits_of_flags"]

T = TypeVar("T")

BackendName = Literal["wasm", "native", "repl", "kimina", "remote", "fake"]
"""`wasm` is the embedded Lean; the others are called as their configs."""


def backend_of_flags(
    backend: BackendName,
    *,
    project: Path | None,
    url: str,
    token_env: str,
    token_flag: str = "--token-env",
) -> BackendConfig:
    """The backend that a command is to use.

    Args:
      backend: `--backend`.
      project: `--project`; None where it was not given.
      url: `--url`; empty where it was not given.
      token_env: variable with the server's token; empty where it was not given.
      token_flag: what the command calls `token_env`.

    Raises:
      ConfigError: there is no such backend; a flag is missing, or belongs to another
        backend; the variable is not set.
    """
    require("--backend", backend, Among(*get_args(BackendName)))
    if project is not None and backend not in ("native", "repl"):
        raise _surplus(backend, "--project", project, "native or repl")
    if url and backend not in ("kimina", "remote"):
        raise _surplus(backend, "--url", url, "kimina or remote")
    if token_env and backend not in ("kimina", "remote"):
        raise _surplus(backend, token_flag, token_env, "kimina or remote")
    if token_env:
        # `make` reads it; here the error can name the flag, before anything starts.
        environment_token(token_env, token_flag)
    match backend:
        case "wasm":
            return Embedded()
        case "native":
            return Native(project=_given(backend, "--project", project))
        case "repl":
            return Repl(project=_given(backend, "--project", project))
        case "kimina":
            return Kimina(url=_given(backend, "--url", url), token_env=token_env)
        case "remote":
            return Remote(url=_given(backend, "--url", url), token_env=token_env)
        case "fake":
            return Fake()


def limits_of_flags(
    backend: BackendConfig,
    *,
    timeout: float,
    memory_mb: int | None,
    heartbeats: int = DEFAULT_LIMITS.heartbeats,
) -> Limits:
    """What one proof may use.

    Args:
      backend: says what memory suits it.
      timeout: `--timeout`, in seconds.
      memory_mb: `--memory-mb`; None where it was not given.
      heartbeats: `--heartbeats`, where a command has it.

    Raises:
      ConfigError: one is out of range.
    """
    # Its field has another name; those of the others are their flags'.
    require("--timeout", timeout, WALL_S, remedy="in seconds, a day at most")
    return Limits(
        wall_s=timeout,
        heartbeats=heartbeats,
        memory_mb=backend.default_memory_mb if memory_mb is None else memory_mb,
    )


def _given(backend: BackendName, flag: str, value: T | None) -> T:
    if not value:
        raise ConfigError(
            f"Backend {backend}: expected {flag}, got nothing; say what it is to use."
        )
    return value


def _surplus(
    backend: BackendName, flag: str, value: object, owners: str
) -> ConfigError:
    return ConfigError(
        f"Backend {backend}: expected no {flag}, got {value}; choose --backend "
        f"{owners}, or leave it out."
    )
