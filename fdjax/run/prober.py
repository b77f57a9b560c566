"""Measurements of a run on the problems held out: each policy once, and its teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fdjax.eval import distinct_names
from fdjax.model import Model
from fdjax.records import Problem
from fdjax.rollout import Pipeline, Trajectory, fit_feedback
from fdjax.run.config import RunConfig
from fdjax.run.context import RunContext
from fdjax.run.probe import probe
from fdjax.run.probes import ProbeAt, ProbeRows, Reader

__all__ = ["Prober"]


@dataclass(frozen=True, kw_only=True)
class Prober:
    """Measures policies, and writes and says what it found."""

    context: RunContext[RunConfig]
    model: Model
    problems: Sequence[Problem]
    """Held out."""
    student: Pipeline
    """Puts the problem alone."""
    teacher: Pipeline
    """Has room for feedback in its prompts."""
    rows: ProbeRows

    def measure(self, at: ProbeAt, params: Any, teacher: Any) -> None:
        """Measures the student, and the teacher with feedback on what it wrote.

        A frozen teacher is measured each time, too: its weights stay, but it reads
        feedback on other attempts as the student learns. Where a writer always says
        the same, its figures repeat; `evaluation.teacher` leaves them out.

        Args:
          at: which policy this is; what was measured before is not measured again.
          params: of the student.
          teacher: parameters that read feedback; None where none do.
        """
        settings = self.context.config.evaluation
        reads = settings.teacher and teacher is not None
        readers: list[Reader] = ["student", "teacher"] if reads else ["student"]
        if all(self.rows.find(at, reader) for reader in readers):
            return
        probed = f"probe of {at.arm}"
        measure = partial(
            probe,
            number=at.step,
            model=self.model,
            problems_per_batch=self.context.config.attempts.problems,
            labels=dict(zip(self.problems, distinct_names(self.problems), strict=True)),
        )
        with self.context.timed("evaluation"):
            alone, attempts = measure(
                replace(self.student, phase=probed),
                params=params,
                problems=list(self.problems),
                key=self.context.key(2),
                samples=settings.samples,
                ks=settings.ks,
                comment=reads,
                version=at.step,
            )
            self.rows.write(at, "student", alone)
            said = (
                f"[dim]{at.arm} at {at.step}:[/] reward {_shown(alone.reward)}, "
                f"entropy {_shown(alone.entropy, 2)}, marginal entropy "
                f"{alone.marginal_entropy:.2f}"
            )
            problems, notes = self._notes(attempts)
            if reads and notes:
                informed, _ = measure(
                    replace(self.teacher, phase=probed),
                    params=teacher,
                    problems=problems,
                    key=self.context.key(3),
                    samples=1,
                    feedback=notes,
                )
                self.rows.write(at, "teacher", informed)
                said += f"; teacher with feedback: reward {_shown(informed.reward)}"
            elif reads:
                said += "; [bold red]teacher not measured: no feedback[/]"
            self.student.sampler.rest()
        self.context.journal.passed(probed)
        self.context.display.say(said)

    def _notes(self, attempts: Sequence[Trajectory]) -> tuple[list[Problem], list[str]]:
        """Problems of the attempts with feedback, and the feedback.

        The others would show what the teacher does without any.
        """
        problems = [each.problem for each in attempts]
        notes = fit_feedback(
            self.teacher.tokenizer,
            problems,
            [each.feedback for each in attempts],
            width=self.teacher.prompt_width,
            format=self.teacher.format,
        )
        read = [
            (problem, note)
            for problem, note in zip(problems, notes, strict=True)
            if note is not None
        ]
        return [problem for problem, _ in read], [note for _, note in read]


def _shown(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
