"""A run is a folder: configuration, provenance, metrics, samples, checkpoints."""

import dataclasses
import enum
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import fdjax
from fdjax.errors import ConfigError

__all__ = ["open_run", "to_json"]

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tokenizers",
)


def open_run(folder: Path, config: Any, *, resume: bool) -> None:
    """Creates a run's folder with its resolved configuration, or reopens it.

    Raises:
      ConfigError: the folder holds a run and `resume` is off; it is on and there is no
        run; or the run was made with another configuration.
    """
    path = folder / "config.json"
    settings = to_json(config)
    if not resume:
        if path.exists():
            raise ConfigError(
                f"Expected no run in {folder}, got one; give another --name, continue "
                "it with --resume, or delete the folder."
            )
        folder.mkdir(parents=True, exist_ok=True)
        content = {"config": settings, "provenance": _provenance()}
        part = path.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        os.replace(part, path)
        return
    if not path.exists():
        raise ConfigError(
            f"Expected a run to resume in {folder}, got none; leave out --resume."
        )
    before = json.loads(path.read_text())["config"]
    changed = sorted(key for key in before if before[key] != settings.get(key))
    if changed:
        raise ConfigError(
            f"Expected the configuration of the run in {folder}, got other values of "
            f"{', '.join(changed)}; resume with the same flags."
        )


def to_json(value: Any) -> Any:
    """Nested dataclasses, paths, enums and functions as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_json(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name != "resume"
        }
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    return value


def _provenance() -> dict[str, Any]:
    return {
        "fdjax": fdjax.__version__,
        "python": sys.version.split()[0],
        "git": _git_revision(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
    }


def _git_revision() -> str | None:
    """Commit of the working tree, `+dirty` when it has changes; None outside git."""
    root = Path(__file__).parent
    try:
        commit, status = (
            subprocess.run(
                ["git", *arguments],
                cwd=root,
                check=True,
                capture_output=True,
                text=True,
                timeout=10,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+dirty" if status else "")
