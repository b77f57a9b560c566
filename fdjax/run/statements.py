"""Whether Lean understands the problems of a run, asked before any weight is read."""

import logging
from collections.abc import Sequence

from rich.markup import escape

from fdjax.errors import BackendError, ConfigError
from fdjax.judge import LeanJudge
from fdjax.records import Problem
from fdjax.run.console import Display
from fdjax.run.task import Task

__all__ = ["check_statements"]

_log = logging.getLogger(__name__)

_SAMPLE = 4
"""Statements of each set: a header that Lean does not know is known by one."""


def check_statements(task: Task, display: Display) -> None:
    """Puts a few statements of the problems to the Lean that will judge.

    Where the judge is no `LeanJudge`, nobody is asked; an outage is left to the run.

    Args:
      task: its problems, held out and not, and its judge.
      display: what a person sees.

    Raises:
      ConfigError: Lean understands none of those to train on, or of those held out.
      InstallError: Lean is not installed.
    """
    if not isinstance(task.judge, LeanJudge):
        return
    sets = {
        "problems": _spread(task.problems),
        "problems held out": _spread(task.evaluation),
    }
    asked = [problem for sample in sets.values() for problem in sample]
    try:
        reports = iter(task.judge.verifier.check_statements(asked))
    except BackendError as error:
        _log.warning("The statements of the problems are not checked: %s", error)
        return
    for name, sample in sets.items():
        told = zip(sample, reports, strict=False)
        faults = [
            f"{each.name}: {report.reason}" for each, report in told if not report.ok
        ]
        if len(faults) == len(sample):
            raise ConfigError(
                f"expected {name} that Lean understands, got none among {len(sample)} "
                f"of them ({faults[0]}): every attempt would be masked. Give a Lean "
                "that has what they import, such as lean:native --lean.project FOLDER "
                "of experiments.prover with a Lake project on Mathlib, or other "
                "problems"
            )
        if faults:
            display.say(
                f"[yellow]{len(faults)} of {len(sample)} {name} are at fault,[/] so "
                "that attempts at them are masked (rollout/broken_statements), among "
                f"them {escape(faults[0])}"
            )


def _spread(problems: Sequence[Problem]) -> list[Problem]:
    """A few from all over the sequence, the first among them."""
    step = -(-len(problems) // _SAMPLE)
    return list(problems[::step])
