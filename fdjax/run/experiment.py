"""An experiment: its settings, its task and its arms make a command."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from fdjax.run.changes import ResumeRules
from fdjax.run.command import run_command
from fdjax.run.config import RunConfig
from fdjax.run.console import Display
from fdjax.run.context import RunContext, run_folder
from fdjax.run.recipe import Recipe, load_recipe
from fdjax.run.task import Arm, Task
from fdjax.sharding import make_mesh

__all__ = ["experiment", "resume_rules"]

Config = TypeVar("Config", bound=RunConfig)


def experiment(
    default: Config,
    *,
    task: Callable[[RunContext[Config]], Task],
    arms: Callable[[Config], Sequence[Arm]],
    finish: Callable[[Recipe], object] = lambda recipe: None,
    arguments: Sequence[str] | None = None,
) -> int:
    """Runs an experiment as the command line says; see `docs/experiments.md`.

    Args:
      default: its settings where no flag says otherwise.
      task: the problems, their judge and the writer of feedback; what must be closed
        goes into the context's `resources`.
      arms: what learns the task, and is compared.
      finish: called at the end, for figures and tables.
      arguments: of the command line; the process's own by default.

    Returns:
      The exit code: 0 done, 2 bad input, 130 interrupted.
    """

    def run(config: Config, display: Display) -> None:
        run_experiment(config, display, task=task, arms=arms, finish=finish)

    return run_command(default, run, arguments)


def run_experiment(
    config: Config,
    display: Display,
    *,
    task: Callable[[RunContext[Config]], Task],
    arms: Callable[[Config], Sequence[Arm]],
    finish: Callable[[Recipe], object] = lambda recipe: None,
) -> None:
    """Runs an experiment with given settings; arguments as for `experiment`."""
    planned = tuple(arms(config))
    mesh = make_mesh(
        data=config.mesh.data, fsdp=config.mesh.fsdp, tensor=config.mesh.tensor
    )
    with run_folder(config, resume_rules(planned), display, mesh) as context:
        recipe = load_recipe(context, task(context), planned)
        recipe.run()
        finish(recipe)
        display.times(context.seconds)


def resume_rules(arms: Sequence[Arm]) -> ResumeRules:
    """Which settings a resumed run may change."""
    free: dict[str, tuple[str, ...]] = dict.fromkeys(
        ("name", "runs", "dry_run", "mesh", "evaluation", "checkpoint_every"), ()
    )
    return ResumeRules(
        phases=tuple(arm.phase(stage) for arm in arms for stage in arm.stages),
        fixed_by=free,
        advice="Name, runs, mesh, evaluation and checkpoint_every may change. ",
    )
