"""What a run of `fdjax verify` is told."""

from dataclasses import dataclass
from pathlib import Path

from fdjax.backend_flags import BackendName, backend_of_flags, limits_of_flags
from fdjax.errors import ConfigError
from fdjax.lean.backends.config import BackendConfig
from fdjax.lean.facts.backend import DEFAULT_LIMITS, Limits

__all__ = ["VerifyOptions"]

_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """How to verify; the command line's options."""

    backend: BackendName = "wasm"
    """The Lean to use: wasm is the embedded one, native that of a Lake project, repl
    the same through the community REPL, kimina and remote are servers; fake is none and
    accepts what contains `trivial`, for trying things out."""
    workers: int | None = None
    """Lean processes at a time; one a core by default, fewer where memory is short.
    With a server, requests at a time; 16 by default."""
    timeout: float = DEFAULT_LIMITS.wall_s
    """Wall time of one proof, in seconds."""
    memory_mb: int | None = None
    """Memory of one worker, in MiB; what suits the backend by default."""
    heartbeats: int = DEFAULT_LIMITS.heartbeats
    """Lean's `maxHeartbeats`."""
    cache: Path | None = None
    """File that keeps verdicts for later runs; several runs may share it."""
    project: Path | None = None
    """Folder of the Lake project to use, for backends that run Lean on this machine."""
    url: str = ""
    """Address of the server, for backends that ask one."""
    token_env: str = ""
    """Name of the environment variable that holds the server's token."""
    overwrite: bool = False
    """Replace the output instead of going on where an earlier run ended."""

    def backend_config(self) -> BackendConfig:
        """What makes a backend for each worker.

        Raises:
          ConfigError: the backend's options do not fit it.
        """
        return backend_of_flags(
            self.backend,
            project=self.project,
            url=self.url,
            token_env=self.token_env,
        )

    def limits(self) -> Limits:
        """What one proof may use."""
        return limits_of_flags(
            self.backend_config(),
            timeout=self.timeout,
            memory_mb=self.memory_mb,
            heartbeats=self.heartbeats,
        )

    def number_of_workers(self) -> int:
        """The workers asked for, or as many as this machine holds or a server suits."""
        if self.workers is not None:
            return self.workers
        return self.backend_config().default_workers(self.memory_mb)

    def check_cache(self) -> None:
        """Whether the cache file is none, new or a cache.

        Raises:
          ConfigError: it is something else, which opening a cache would replace, or
            cannot be read.
        """
        if self.cache is None:
            return
        try:
            with self.cache.open("rb") as file:
                start = file.read(len(_SQLITE))
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigError(
                f"--cache: expected a verdict cache or a new file, got {error}; name a "
                "file that you may read and write."
            ) from error
        if start and start != _SQLITE:
            raise ConfigError(
                f"--cache: expected a verdict cache or a new file, got {self.cache}, "
                "which is neither; name another one, or remove it if it is a damaged "
                "cache."
            )
