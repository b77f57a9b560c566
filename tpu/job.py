"""The command that every host of a slice runs, whoever rents it."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from fdjax.errors import ConfigError

__all__ = ["Job", "Place", "quoted", "require_name", "shell"]

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?")
_OURS = ("--runs", "--name", "--resume", "--processes")
"""Flags of a run that the launcher gives."""
_JOIN = "--processes.join"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an installed project is on a host."""

    python: str
    """Interpreter that has fdjax."""
    fdjax: str
    """The command line."""
    ended: str = ""
    """File that is to hold the run's exit code."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """An experiment, and the folder that all hosts see."""

    name: str
    """Of the run, its slice and all else that is made for it."""
    runs: str
    """Where runs are kept: `gs://bucket/folder`, or a folder that all hosts mount."""
    command: tuple[str, ...] = ()
    """The experiment, such as `experiments.prover`, and its flags."""
    endpoint: str = ""
    """Address of the model that writes feedback, which every host must reach."""
    lean: tuple[str, ...] = ()
    """Flags of `fdjax doctor` that say which Lean is tried before."""

    def __post_init__(self) -> None:
        require_name(self.name)
        if not self.runs.startswith(("gs://", "/")):
            raise ConfigError(
                f"expected runs to be gs://BUCKET/FOLDER or an absolute path that all "
                f"hosts mount, got {self.runs!r}"
            )
        for flag in self.command[1:]:
            if flag.split("=")[0].split(".")[0] in _OURS:
                raise ConfigError(
                    f"expected no {flag} after --: name, runs, resume and processes "
                    "are the launcher's to give"
                )

    @property
    def folder(self) -> str:
        """Of the run."""
        return f"{self.runs.rstrip('/')}/{self.name}"

    def run(self, place: Place) -> list[str]:
        """The run, to be started again at any time.

        Raises:
          ConfigError: there is no experiment.
        """
        if not self.command:
            raise ConfigError(
                "expected the experiment and its flags after --, such as "
                "-- experiments.prover --policy …, got nothing"
            )
        module, *flags = self.command
        return [
            *(place.python, "-m", module, "--runs", self.runs, "--name", self.name),
            *("--resume", "auto", _JOIN, *flags),
        ]

    def check(self, place: Place) -> list[str]:
        """The look at every host before it."""
        endpoint = ("--endpoint", self.endpoint) if self.endpoint else ()
        return [
            *(place.fdjax, "doctor", "--pod", _JOIN, "--runs", self.runs),
            *(*endpoint, *self.lean),
        ]

    def kept(self, place: Place) -> list[str]:
        """The run with its keeper."""
        keeper = [place.python, "-m", "tpu.keep", "--progress", self.folder]
        if place.ended:
            keeper += ["--ended", place.ended]
        return [*keeper, "--", *self.run(place)]


def require_name(name: str) -> None:
    """Refuses names that Cloud TPU or Kubernetes would.

    Raises:
      ConfigError: it is one.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "expected name to be up to 32 of a–z, 0–9 and -, a letter first and no - "
            f"last, got {name!r}"
        )


def shell(words: Sequence[str]) -> str:
    """Words as one line of a shell, which still knows ~/ at their beginning."""
    return " ".join(
        f"~/{shlex.quote(word[2:])}" if word.startswith("~/") else shlex.quote(word)
        for word in words
    )


def quoted(line: str) -> str:
    """A line of a shell as one word of another, as readable as may be."""
    return shlex.quote(line) if set(line) & set('"$`\\!') else f'"{line}"'
