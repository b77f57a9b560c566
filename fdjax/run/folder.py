"""A run is a folder: configuration, provenance, metrics, samples, checkpoints."""

import contextlib
import dataclasses
import datetime
import enum
import fcntl
import fnmatch
import functools
import logging
import os
import socket
import subprocess
import sys
import types
import uuid
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from tyro.constructors import PrimitiveConstructorSpec

import fdjax
from fdjax.checkpoint import checkpoint_steps
from fdjax.encoding import decode, encode
from fdjax.errors import ConfigError
from fdjax.files import UNFINISHED, write_whole
from fdjax.objects import Place, place
from fdjax.run.changes import ResumeRules, changes

__all__ = [
    "RESUMES",
    "Resume",
    "Run",
    "Runs",
    "begun_phases",
    "open_run",
    "read_config",
    "to_json",
]

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tokenizers",
)

_ROWS = ("metrics.jsonl", "samples.jsonl")
"""Files that a run with checkpoints has."""

_LOCK = "lock"

_logger = logging.getLogger(__name__)

RESUMES = ("no", "newest", "auto")


def _choice(words: Sequence[str]) -> str:
    """`--resume` alone means the newest checkpoint."""
    if len(words) > 1 or not set(words) <= set(RESUMES):
        raise ValueError(f"expected one of {', '.join(RESUMES)}, got {words}")
    return words[0] if words else "newest"


Resume = Annotated[
    Literal["no", "newest", "auto"],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{{{','.join(RESUMES)}}}]",
        instance_from_str=_choice,
        is_instance=lambda value: value in RESUMES,
        str_from_instance=lambda value: [value],
    ),
]
"""Whether to continue a run: no; from the newest checkpoint of each phase that is not
damaged; or, for a command that is started again and again, from there if there is a
run, and else from the beginning."""


Runs = Annotated[
    Place,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH|gs://…",
        instance_from_str=lambda words: place(words[0]),
        is_instance=lambda value: isinstance(value, PurePath),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""Where runs are kept: a folder, or an address of an object store."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run's folder, open and locked."""

    folder: Path
    id: str
    """Made with the run; its checkpoints and results carry it."""
    notes: tuple[str, ...] = ()
    """What is different since the run began."""


@contextlib.contextmanager
def open_run(
    folder: Path,
    config: Any,
    rules: ResumeRules,
    *,
    resume: bool,
    home: Place | None = None,
) -> Iterator[Run]:
    """Creates a run's folder with its resolved configuration, or reopens it.

    Args:
      folder: of the run.
      config: a dataclass of JSON values and dataclasses of such.
      rules: which settings a resumed run may change.
      resume: whether there must be a run, or must not.
      home: where its checkpoints are, if not in the folder.

    The folder is locked until the block ends, by whatever means the process does. Of
    several processes of one run, only the first may call this.

    Raises:
      ConfigError: the folder holds a run and `resume` is off; it is on and there is no
        run; settings differ that must not; or another process has the run open.
    """
    path = folder / "config.json"
    if resume and not path.exists():
        raise ConfigError(
            f"Expected a run to resume in {folder}, got none; leave out --resume."
        )
    if not resume:
        _check_free(folder, path)
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        for left in folder.glob(UNFINISHED):
            # Of a process that was killed.
            left.unlink(missing_ok=True)
        if resume:
            yield _reopen(folder, path, config, rules, home or folder)
        else:
            yield _create(folder, path, config)


def begun_phases(folder: Place, rules: ResumeRules) -> list[str]:
    """Phases of a run that have a checkpoint."""
    return [
        phase
        for phase in rules.phases
        if checkpoint_steps(folder / "checkpoints" / phase)
    ]


def _check_free(folder: Path, path: Path) -> None:
    if path.exists():
        raise ConfigError(
            f"Expected no run in {folder}, got one; give another --name, continue "
            "it with --resume, or delete the folder."
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            f"Expected a folder or nothing at {folder}, got a file; give another "
            "--name."
        )
    # A run that fails at once takes its folder with it; others' files must not go.
    found = {one.name for one in folder.iterdir()} if folder.exists() else set()
    # A process that is killed at once may leave these alone.
    found = {one for one in found if not fnmatch.fnmatch(one, UNFINISHED)}
    if found - {_LOCK}:
        raise ConfigError(
            f"Expected no folder {folder} or an empty one, got one with "
            f"{', '.join(sorted(found))}; give another --name."
        )


def _create(folder: Path, path: Path, config: Any) -> Run:
    # Somebody else may have been first to lock the folder.
    _check_free(folder, path)
    run = Run(folder=folder, id=uuid.uuid4().hex)
    content = {"id": run.id, "config": to_json(config), "provenance": _provenance()}
    write_whole(path, encode(content, indent=1))
    return run


def _reopen(
    folder: Path, path: Path, config: Any, rules: ResumeRules, home: Place
) -> Run:
    content = read_config(path)
    run_id, before, resumed = content["id"], content["config"], content["resumed"]
    latest = (resumed or [content])[-1]["provenance"]
    begun, settings = begun_phases(home, rules), to_json(config)
    provenance = _provenance()
    changed = rules.check(before, settings, begun)
    lost = [name for name in _ROWS if begun and not (folder / name).exists()]
    different = {**changed, **changes(latest, provenance)}
    entry = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "changed": changed,
        "lost": lost,
        "provenance": provenance,
    }
    content |= {"config": settings, "resumed": [*resumed, entry]}
    write_whole(path, encode(content, indent=1))
    return Run(
        folder=folder,
        id=run_id,
        notes=(
            *(f"{name} was {was}, now {now}" for name, (was, now) in different.items()),
            *(f"{name} is gone; what checkpoints cover is not in it" for name in lost),
        ),
    )


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Holds the folder for this process; the system lets go when the process ends."""
    with (folder / _LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ConfigError(
                f"Expected to be alone in {folder}, got {holder} at work there; wait "
                "for it, stop it, or give another --name."
            ) from error
        except OSError as error:
            _logger.warning(
                "%s is on a file system without locks (%s): start no second run in it.",
                *(folder, error),
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def read_config(path: Path) -> dict[str, Any]:
    """What a run said of itself, its parts of the right kinds.

    Raises:
      ConfigError: the file is missing or damaged.
    """
    try:
        content = {"resumed": []} | decode(path.read_bytes())
        kinds = {"id": str, "config": dict, "provenance": dict, "resumed": list}
        # A process that ends early says no more than these.
        kinds |= {"settled": dict} if "settled" in content else {}
        for name, kind in kinds.items():
            if not isinstance(content[name], kind):
                raise TypeError(f"{name} {content[name]!r}")
        for entry in content["resumed"]:
            if not isinstance(entry["provenance"], dict):
                raise TypeError(f"resumed {entry!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"Expected id, config and provenance of a run in {path}, got {error!r}; "
            "restore the file, or start a new run."
        ) from error
    return content


def to_json(value: Any) -> Any:
    """Nested dataclasses, paths, enums and functions as JSON values.

    Where a setting is one of several dataclasses, `type` says which.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _field_json(field, getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name != "resume"
        }
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, functools.partial):
        return [to_json(value.func), *map(to_json, value.args), to_json(value.keywords)]
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value


def _field_json(field: dataclasses.Field[Any], value: Any) -> Any:
    content = to_json(value)
    if isinstance(field.type, types.UnionType) and isinstance(content, dict):
        return {"type": type(value).__name__, **content}
    return content


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
