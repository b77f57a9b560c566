"""What a run learns, and the arms that learn it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fdjax.data.formats import PLAIN, PromptFormat
from fdjax.errors import ConfigError
from fdjax.feedback import Writer
from fdjax.judge import Judge
from fdjax.ranges import Whole, require_fields
from fdjax.records import Problem
from fdjax.train import OptimizerConfig, Teacher
from fdjax.train.terms import Term

__all__ = ["Arm", "Stage", "Task"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Problems, and who judges and comments the attempts at them."""

    problems: Sequence[Problem]
    """To train on."""
    evaluation: Sequence[Problem]
    """Held out."""
    judge: Judge
    writer: Writer
    format: PromptFormat = PLAIN
    """How problems are put to the policy."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One algorithm for some iterations; it begins with moments and teacher anew."""

    name: str
    """As its checkpoints are called, after its arm."""
    terms: tuple[Term, ...]
    """What is minimised: their weighted sum."""
    steps: int
    """Iterations."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    teacher: Teacher | None = None
    """Of terms that read one."""

    def __post_init__(self) -> None:
        require_fields(self, steps=Whole(1))
        reads = any(term.needs.teacher for term in self.terms)
        if reads != (self.teacher is not None):
            raise ConfigError(
                f"Stage {self.name}: expected a teacher where a term reads one, and "
                f"none elsewhere, got {self.teacher} for "
                f"{', '.join(term.name for term in self.terms)}"
            )


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Stages that follow each other, from the pretrained policy on."""

    name: str
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise ConfigError(
                f"Arm {self.name}: expected stages of different names, got {names}"
            )

    def phase(self, stage: Stage) -> str:
        """Name of a stage in logs and folders."""
        return self.name if len(self.stages) == 1 else f"{self.name}.{stage.name}"
