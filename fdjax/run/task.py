"""What a run learns, and the arms that learn it."""

from collections.abc import Sequence
from dataclasses import dataclass

from fdjax.data.formats import PLAIN, PromptFormat
from fdjax.episodes import CallFormat
from fdjax.errors import ConfigError
from fdjax.feedback import PolicyFeedback, Writer
from fdjax.judge import Judge
from fdjax.records import Problem
from fdjax.rollout import OpensTools
from fdjax.train import PhaseConfig

__all__ = ["BASE", "Arm", "Task", "chosen_arms", "phases_of"]

BASE = "base"
"""The policy before any training, as rows call it."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Problems, and who judges and comments the attempts at them."""

    problems: Sequence[Problem]
    """To train on."""
    evaluation: Sequence[Problem]
    """Held out."""
    judge: Judge
    writer: Writer | PolicyFeedback
    """Who comments the attempts; the policy itself by its settings."""
    format: PromptFormat = PLAIN
    """How problems are put to the policy, and where its answer is."""
    calls: CallFormat | None = None
    """How the policy calls tools; None where an attempt is the whole proof."""
    tools: OpensTools | None = None
    """Of an episode; with `calls` only."""

    @property
    def asking(self) -> PromptFormat:
        """The format of the prompts, tools included."""
        return self.format if self.calls is None else self.calls.asking(self.format)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Phases that follow each other, from the pretrained policy on."""

    name: str
    """As its policy is called in tables and folders."""
    phases: tuple[PhaseConfig, ...]
    """Their names are those of the arm's rows: give no two of a run the same."""

    def __post_init__(self) -> None:
        if not self.phases:
            raise ConfigError(f"Arm {self.name}: expected phases, got none")
        if BASE in (self.name, *(phase.name for phase in self.phases)):
            raise ConfigError(
                f"Arm {self.name}: expected other names than {BASE!r}, got it for the "
                "arm or a phase: rows call the policy before any training so"
            )


def chosen_arms(arms: Sequence[Arm], only: Sequence[str]) -> tuple[Arm, ...]:
    """The arms that are asked for, in the experiment's order.

    Raises:
      ConfigError: an arm is asked for that is not there.
    """
    names = [arm.name for arm in arms]
    if unknown := [name for name in only if name not in names]:
        raise ConfigError(
            f"expected only to name arms of {', '.join(names)}, got "
            f"{', '.join(unknown)}"
        )
    return tuple(arm for arm in arms if not only or arm.name in only)


def phases_of(arms: Sequence[Arm]) -> list[PhaseConfig]:
    """The phases of all arms, in order.

    Raises:
      ConfigError: two have one name.
    """
    phases = [phase for arm in arms for phase in arm.phases]
    names = [phase.name for phase in phases]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"expected phases of different names in all arms, got {', '.join(names)}: "
            "checkpoints and rows carry them"
        )
    return phases
