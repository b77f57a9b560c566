"""Verbs that all ways of launching have, and the command line that they make."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape

from fdjax.errors import ConfigError, FdjaxError
from tpu.commands import CommandError, Step, perform
from tpu.job import Job, require_name
from tpu.keep import split
from tpu.writer import writer_of

__all__ = ["Fetch", "Named", "Running", "Verb", "run_verb"]


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One thing to do, and how."""

    dry_run: bool = False
    """Print the exact commands, and run none."""

    def steps(self) -> list[Step]:
        """The commands that do it, in their order."""
        raise NotImplementedError

    def run(self) -> int:
        """Does it; the exit code.

        Raises:
          InstallError: a program is missing.
          CommandError: a command failed.
        """
        perform(self.steps(), dry_run=self.dry_run)
        return 0


@dataclass(frozen=True, kw_only=True)
class Named(Verb):
    """What is done to one run."""

    name: str
    """Of the run, and of all that is made for it."""

    def __post_init__(self) -> None:
        require_name(self.name)


@dataclass(frozen=True, kw_only=True)
class Running(Named):
    """What needs the run's own command, which follows --."""

    runs: str
    """Where runs are kept: gs://BUCKET/FOLDER, or a folder that all hosts mount."""
    endpoint: str = ""
    """Address that every host must reach before; by default that of the model that
    writes feedback, as the run's own flags have it."""
    lean_project: str = ""
    """Folder, on the hosts, of a Lake project with Mathlib, which is tried before."""
    command: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()
    """The experiment and its flags."""

    def job(self) -> Job:
        """What every host runs."""
        return Job(
            name=self.name,
            runs=self.runs,
            command=self.command,
            endpoint=self.endpoint or writer_of(self.command[1:]),
            lean=self.lean(),
        )

    def lean(self) -> tuple[str, ...]:
        """Flags of `fdjax doctor` that say which Lean is tried."""
        if not self.lean_project:
            return ()
        return (
            *("--backend", "native", "--project", self.lean_project),
            *("--header", "import Mathlib"),
        )


@dataclass(frozen=True, kw_only=True)
class Fetch(Named):
    """Copy the run's folder from its bucket to here."""

    runs: str
    """Where runs are kept: gs://BUCKET/FOLDER."""
    to: Path = Path("runs")
    """Folder here into which it goes."""
    checkpoints: bool = False
    """With its checkpoints, which are large."""

    def steps(self) -> list[Step]:
        """One copy, which takes what is new.

        Raises:
          ConfigError: `runs` is no bucket.
        """
        if not self.runs.startswith("gs://"):
            raise ConfigError(
                f"expected runs to be gs://BUCKET/FOLDER, got {self.runs!r}: copy the "
                "folder from a machine that mounts it"
            )
        without = () if self.checkpoints else ("--exclude=^(.*/)?checkpoints/",)
        return [
            Step(
                command=(
                    *("gcloud", "storage", "rsync", "--recursive", *without),
                    f"{self.runs.rstrip('/')}/{self.name}",
                    str(self.to / self.name),
                )
            )
        ]


def run_verb(
    program: str, verbs: Mapping[str, type[Verb]], arguments: Sequence[str] | None
) -> int:
    """Does what the command line says.

    Args:
      program: module that is run.
      verbs: by their name on the command line.
      arguments: of the command line; the process's own by default.

    Returns:
      The exit code: 0 done, 1 a command failed, 2 bad input.
    """
    given, command = split(sys.argv[1:] if arguments is None else arguments)
    choices: Any = reduce(
        or_,
        (
            Annotated[verb, tyro.conf.subcommand(name)]  # type: ignore[valid-type]
            for name, verb in verbs.items()
        ),
    )
    verb: Verb = tyro.cli(choices, args=given, prog=f"python -m {program}")
    try:
        if any(field.name == "command" for field in fields(verb)):
            verb = replace(verb, command=tuple(command))
        elif command:
            raise ConfigError(f"expected nothing after --, got {' '.join(command)}")
        return verb.run()
    except KeyboardInterrupt:
        return 130
    except (FdjaxError, OSError) as error:
        message = f"[bold red]error[/] {escape(str(error))}"
        Console(stderr=True).print(message, soft_wrap=True)
        return 1 if isinstance(error, CommandError) else 2
