"""Backends as values: each config says what a backend needs, and makes it.

`Verifier(config.make, workers=config.default_workers())` uses one.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fdjax.errors import ConfigError
from fdjax.lean.backends.fake import FakeBackend
from fdjax.lean.backends.http import server_address
from fdjax.lean.backends.kimina import KiminaBackend
from fdjax.lean.backends.native import NativeBackend
from fdjax.lean.backends.remote import RemoteBackend
from fdjax.lean.backends.repl import ReplBackend
from fdjax.lean.embedded.wasm import WasmBackend
from fdjax.lean.facts.backend import DEFAULT_LIMITS
from fdjax.lean.sandbox.machine import fitting_workers

__all__ = [
    "BackendConfig",
    "Embedded",
    "Fake",
    "Kimina",
    "Native",
    "Remote",
    "Repl",
    "environment_token",
]

EMBEDDED_MB = 700
"""What a working process of the embedded Lean usually holds, in MiB."""
PROJECT_MB = 8192
"""The same for a Lean that has loaded a large library such as Mathlib."""
SERVER_REQUESTS = 16
"""Requests at a time to a server, whose cores are not known here."""


def environment_token(variable: str, setting: str) -> str:
    """The token in an environment variable.

    Args:
      variable: its name.
      setting: what names it, as whoever set it knows it.

    Raises:
      ConfigError: the variable is not set.
    """
    token = os.environ.get(variable, "").strip()
    if not token:
        raise ConfigError(
            f"{setting}: expected a token in the environment variable {variable}, got "
            f"none; export it, or leave {setting} out."
        )
    return token


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The embedded Lean."""

    install_dir: Path | None = None
    """What `install` returned; the user's cache by default."""

    default_memory_mb: ClassVar[int] = DEFAULT_LIMITS.memory_mb
    """`Limits.memory_mb` that suits it."""

    def make(self) -> WasmBackend:
        """A backend for one worker."""
        return WasmBackend(self.install_dir)

    def default_workers(self, memory_mb: int | None = None) -> int:
        """As many as this machine holds.

        Args:
          memory_mb: `Limits.memory_mb`, where somebody chose it.
        """
        return fitting_workers(EMBEDDED_MB, memory_mb)


@dataclass(frozen=True, kw_only=True)
class _InProject:
    """Lean as a Lake project has it, on this machine."""

    project: Path
    """Folder of the Lake project, built before."""
    lake: str = "lake"
    """Name or path of the `lake` program."""

    default_memory_mb: ClassVar[int] = PROJECT_MB
    """`Limits.memory_mb` that suits it."""

    def default_workers(self, memory_mb: int | None = None) -> int:
        """As many as this machine holds.

        Args:
          memory_mb: `Limits.memory_mb`, where somebody chose it.
        """
        return fitting_workers(PROJECT_MB, memory_mb)


@dataclass(frozen=True, kw_only=True)
class Native(_InProject):
    """A Lake project's own Lean through our checker."""

    def make(self) -> NativeBackend:
        """A backend for one worker."""
        return NativeBackend(self.project, lake=self.lake)


@dataclass(frozen=True, kw_only=True)
class Repl(_InProject):
    """A Lake project's own Lean through the community REPL."""

    def make(self) -> ReplBackend:
        """A backend for one worker."""
        return ReplBackend(self.project, lake=self.lake)


@dataclass(frozen=True, kw_only=True)
class _AtServer:
    """Lean behind HTTP."""

    url: str
    """Address of the server, `http(s)://host[:port]`."""
    token_env: str = ""
    """Name of the environment variable that holds the server's token; empty for a
    server that wants none. It is read where the backend is made."""

    default_memory_mb: ClassVar[int] = DEFAULT_LIMITS.memory_mb
    """`Limits.memory_mb` that suits it."""

    def __post_init__(self) -> None:
        server_address(self.url)

    def default_workers(self, memory_mb: int | None = None) -> int:
        """Requests at a time that suit a server, whatever this machine holds."""
        return SERVER_REQUESTS

    def _token(self) -> str | None:
        if not self.token_env:
            return None
        return environment_token(self.token_env, f"{type(self).__name__}.token_env")


@dataclass(frozen=True, kw_only=True)
class Kimina(_AtServer):
    """A Kimina server; needs the `kimina` extra."""

    def make(self) -> KiminaBackend:
        """A backend for one worker.

        Raises:
          ConfigError: the variable `token_env` is not set.
          InstallError: the packages of the extra are missing.
        """
        return KiminaBackend(self.url, token=self._token())


@dataclass(frozen=True, kw_only=True)
class Remote(_AtServer):
    """An `fdjax serve`; needs the `serve` extra."""

    def make(self) -> RemoteBackend:
        """A backend for one worker.

        Raises:
          ConfigError: the variable `token_env` is not set.
          InstallError: the packages of the extra are missing.
        """
        return RemoteBackend(self.url, token=self._token())


@dataclass(frozen=True, kw_only=True)
class Fake:
    """No Lean: accepts a proof that contains `trivial`, for trying out a pipeline."""

    default_memory_mb: ClassVar[int] = DEFAULT_LIMITS.memory_mb
    """`Limits.memory_mb` that suits it."""

    def make(self) -> FakeBackend:
        """A backend for one worker."""
        return FakeBackend()

    def default_workers(self, memory_mb: int | None = None) -> int:
        """One a core: it takes no memory."""
        return fitting_workers(0)


BackendConfig = Embedded | Native | Repl | Kimina | Remote | Fake
"""Any of them; `make` is what `Verifier` takes."""
