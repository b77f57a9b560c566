"""What `fdjax doctor` is told; nothing here imports JAX."""

from dataclasses import dataclass, field
from pathlib import Path

from fdjax.backend_flags import BackendName, backend_of_flags
from fdjax.lean.backends.config import BackendConfig
from fdjax.processes import ProcessesConfig

__all__ = ["DoctorOptions"]


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """What is looked at; the command line's options."""

    pod: bool = False
    """Look at every host of a run; the same command on all of them, and the run's own
    flags of processes. The other options are for this."""
    processes: ProcessesConfig = field(default_factory=ProcessesConfig)
    runs: str = ""
    """Where runs are to be kept, a folder or gs://BUCKET/FOLDER; all hosts must see the
    same."""
    endpoint: str = ""
    """Address of the model that writes feedback; every host must reach it."""
    backend: BackendName = "wasm"
    """The Lean that is tried on every host (`fdjax verify --help`)."""
    project: Path | None = None
    """Folder of the Lake project to use, for backends that run Lean on this machine."""
    url: str = ""
    """Address of the server, for backends that ask one."""
    token_env: str = ""
    """Name of the environment variable that holds the server's token."""
    header: str = ""
    """Lean before the theorem that is tried, such as "import Mathlib"."""

    def backend_config(self) -> BackendConfig:
        """What makes the backend.

        Raises:
          ConfigError: the backend's options do not fit it.
        """
        return backend_of_flags(
            self.backend, project=self.project, url=self.url, token_env=self.token_env
        )
