"""Which backend a name means, and the options that it takes."""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from fdjax.errors import ConfigError
from fdjax.lean.backends.fake import FakeBackend
from fdjax.lean.backends.native import NativeBackend
from fdjax.lean.backends.repl import ReplBackend
from fdjax.lean.embedded.wasm import WasmBackend
from fdjax.lean.facts.backend import DEFAULT_LIMITS, WALL_S, Backend, Limits
from fdjax.lean.sandbox.machine import fitting_workers
from fdjax.ranges import Among, require

__all__ = [
    "BackendKind",
    "BackendName",
    "BackendOptions",
    "backend_factory",
    "backend_kind",
    "default_workers",
]

SERVER_REQUESTS = 16
"""Requests at a time to a server, whose cores are not known here."""

BackendName = Literal["wasm", "native", "repl", "kimina", "remote", "fake"]
"""`wasm` is the embedded Lean, `native` a Lake project's own, `repl` the same through
the community REPL, `kimina` a Kimina server, `remote` an `fdjax serve`. `fake` runs no
Lean: it accepts a proof that contains `trivial`, for trying out a pipeline."""


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """Where a backend finds Lean; each backend takes some of these."""

    project: Path | None = None
    """Folder of a Lake project whose Lean and libraries are used."""
    url: str = ""
    """Address of a server that verifies."""
    token_env: str = ""
    """Name of the environment variable that holds the server's token."""

    def token(self) -> str:
        """The server's token; empty when no variable is named.

        Raises:
          ConfigError: the variable is not set.
        """
        if not self.token_env:
            return ""
        token = os.environ.get(self.token_env, "")
        if not token:
            raise ConfigError(
                f"Expected a token in the environment variable {self.token_env}, got "
                "none; export it, or leave --token-env out."
            )
        return token


@dataclass(frozen=True, kw_only=True)
class BackendKind:
    """What is to know about one backend before it is made."""

    make: Callable[[BackendOptions], Callable[[], Backend]]
    """From options to what makes one backend per worker."""
    takes: tuple[str, ...] = ()
    """Fields of `BackendOptions` that it may be given."""
    needs: tuple[str, ...] = ()
    """Those of them that it must be given."""
    worker_mb: int = 0
    """Memory of a working process, in MiB; 0 when it is on another machine."""
    memory_mb: int = DEFAULT_LIMITS.memory_mb
    """Default of `Limits.memory_mb`."""


def _native(options: BackendOptions) -> Callable[[], Backend]:
    assert options.project is not None, "checked by `needs`"
    return partial(NativeBackend, options.project)


def _repl(options: BackendOptions) -> Callable[[], Backend]:
    assert options.project is not None, "checked by `needs`"
    return partial(ReplBackend, options.project)


def _kimina(options: BackendOptions) -> Callable[[], Backend]:
    # These two import what their extra brings.
    from fdjax.lean.backends.kimina import KiminaBackend

    return partial(KiminaBackend, options.url, token=options.token() or None)


def _remote(options: BackendOptions) -> Callable[[], Backend]:
    from fdjax.lean.backends.remote import RemoteBackend

    return partial(RemoteBackend, options.url, token=options.token() or None)


_KINDS: dict[BackendName, BackendKind] = {
    "wasm": BackendKind(make=lambda options: WasmBackend, worker_mb=700),
    "native": BackendKind(
        make=_native, needs=("project",), worker_mb=8192, memory_mb=8192
    ),
    "repl": BackendKind(make=_repl, needs=("project",), worker_mb=8192, memory_mb=8192),
    "kimina": BackendKind(make=_kimina, needs=("url",), takes=("token_env",)),
    "remote": BackendKind(make=_remote, needs=("url",), takes=("token_env",)),
    "fake": BackendKind(make=lambda options: FakeBackend),
}


def backend_kind(name: BackendName) -> BackendKind:
    """The facts about a backend.

    Raises:
      ConfigError: there is no such backend.
    """
    require("--backend", name, Among(*get_args(BackendName)))
    return _KINDS[name]


def flag_limits(
    name: BackendName,
    *,
    timeout: float,
    memory_mb: int | None,
    heartbeats: int = DEFAULT_LIMITS.heartbeats,
) -> Limits:
    """What one proof may use, from a command's flags.

    Args:
      name: the backend.
      timeout: `Limits.wall_s`.
      memory_mb: `Limits.memory_mb`; what suits the backend where nobody chose it.
      heartbeats: `Limits.heartbeats`.

    Raises:
      ConfigError: one is out of range.
    """
    # Its field has another name; those of the others are their flags'.
    require("--timeout", timeout, WALL_S, remedy="in seconds, a day at most")
    suits = backend_kind(name).memory_mb
    return Limits(
        wall_s=timeout,
        heartbeats=heartbeats,
        memory_mb=suits if memory_mb is None else memory_mb,
    )


def default_workers(name: BackendName, memory_mb: int | None = None) -> int:
    """Workers where nobody says how many: what this machine holds or a server suits.

    Args:
      name: the backend.
      memory_mb: `Limits.memory_mb`, where somebody chose it.
    """
    kind = backend_kind(name)
    if "url" in kind.needs:
        return SERVER_REQUESTS
    return fitting_workers(kind.worker_mb, memory_mb)


def backend_factory(
    name: BackendName, options: BackendOptions | None = None
) -> Callable[[], Backend]:
    """What makes a backend for each worker, as `Verifier` takes it.

    Args:
      name: the backend.
      options: where it finds Lean.

    Raises:
      ConfigError: an option is missing, or does not belong to this backend.
    """
    options = options or BackendOptions()
    kind = backend_kind(name)
    check_options(name, options, _KINDS)
    return kind.make(options)


def check_options(
    name: BackendName,
    options: BackendOptions,
    kinds: dict[BackendName, BackendKind],
) -> None:
    """Whether a backend of `kinds` takes these options and has all that it needs.

    Raises:
      ConfigError: it does not, or has not.
    """
    kind = kinds[name]
    for field in fields(options):
        given = getattr(options, field.name) != field.default
        flag = "--" + field.name.replace("_", "-")
        if given and field.name not in kind.takes + kind.needs:
            owners = [
                other
                for other, facts in kinds.items()
                if field.name in facts.takes + facts.needs
            ]
            remedy = f"choose --backend {' or '.join(owners)}, or " if owners else ""
            raise ConfigError(
                f"Backend {name}: expected no {flag}, got "
                f"{getattr(options, field.name)}; {remedy}leave it out."
            )
        if not given and field.name in kind.needs:
            raise ConfigError(
                f"Backend {name}: expected {flag}, got nothing; say what it is to use."
            )
