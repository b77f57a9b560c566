"""An experiment: its settings, its task and its arms make a command."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import jax

from fdjax.data.pipeline import fingerprint
from fdjax.eval import Claim
from fdjax.objects import on_disk
from fdjax.plots import write_figures, write_report
from fdjax.run.changes import ResumeRules
from fdjax.run.command import run_command
from fdjax.run.config import RunConfig
from fdjax.run.console import Display, linked
from fdjax.run.context import RunContext, run_folder
from fdjax.run.joining import alike, join
from fdjax.run.plan import print_plan
from fdjax.run.recipe import Recipe, make_recipe
from fdjax.run.sampler import MAY_CHANGE
from fdjax.run.seeds import SeedProbes, each_seed, write_seeds
from fdjax.run.settled import settle, settled_facts
from fdjax.run.task import Arm, Task, chosen_arms, phases_of
from fdjax.sharding import make_mesh, on_first_slowly, require_alike

__all__ = ["experiment", "resume_rules"]

Config = TypeVar("Config", bound=RunConfig)

_FREE = (
    *("name", "runs", "seeds", "dry_run", "only"),
    *("processes", "mesh", "evaluation", "checkpoints"),
    *("guards", "trackers", "profile"),
    # Of an experiment that has its writer's settings under this name.
    *("feedback.max_missing_share", "feedback.window", "feedback.at_budget"),
    *("feedback.budget", "feedback.prices", "feedback.limits"),
)
"""Settings that decide no number of a run, and may change at any time."""


def experiment(
    default: Config,
    *,
    task: Callable[[RunContext[Config]], Task],
    arms: Callable[[Config], Iterable[Arm]],
    finish: Callable[[Recipe], object] = lambda recipe: None,
    claims: Callable[[SeedProbes], Sequence[Claim]] = lambda probes: (),
    arguments: Sequence[str] | None = None,
) -> int:
    """Runs an experiment as the command line says; see `docs/experiments.md`.

    Args:
      default: its settings where no flag says otherwise.
      task: the problems, their judge and the writer of feedback; what must be closed
        goes into the context's `resources`.
      arms: what learns the task, and is compared; `only` of the settings chooses.
      finish: called at the end of a run, for figures and tables; of several processes
        the first calls it, alone.
      claims: what several seeds say together, from their probes (`--seeds`).
      arguments: of the command line; the process's own by default.

    Returns:
      The exit code: 0 done, 2 bad input, 130 interrupted, 75 to be started again.
    """

    def run(config: Config, display: Display) -> None:
        run_experiment(config, display, task=task, arms=arms, finish=finish)

    def run_all(config: Config, display: Display) -> None:
        if config.processes.several:
            join(config.processes)
            display = display if jax.process_index() == 0 else Display.silent()
        if config.dry_run or not config.seeds:
            return run(config, display)
        place = each_seed(config, display, run)

        def write() -> None:
            with on_disk(place) as folder:
                said = claims(SeedProbes.read(folder))
                write_seeds(folder, said, display, home=place)

        on_first_slowly(write)

    return run_command(default, run_all, arguments)


def run_experiment(
    config: Config,
    display: Display,
    *,
    task: Callable[[RunContext[Config]], Task],
    arms: Callable[[Config], Iterable[Arm]],
    finish: Callable[[Recipe], object] = lambda recipe: None,
) -> None:
    """Runs an experiment with given settings; arguments as for `experiment`."""
    config = config.resolved()
    every = tuple(arms(config))
    planned = chosen_arms(every, config.only)
    # Arms that are not asked for now may have begun, and fix what they depend on.
    rules = resume_rules(every)
    mesh = make_mesh(
        data=config.mesh.data, fsdp=config.mesh.fsdp, tensor=config.mesh.tensor
    )
    if config.dry_run:
        with (
            tempfile.TemporaryDirectory() as nowhere,
            run_folder(
                replace(config, runs=Path(nowhere)), rules, display, mesh
            ) as context,
        ):
            recipe = make_recipe(context, task(context), planned)
            print_plan(display.console, config, recipe)
        return
    with run_folder(config, rules, display, mesh, config.trackers) as context:
        learned = task(context)
        facts = settled_facts(every, learned)
        require_alike(
            {
                "the settings": fingerprint([alike(config)]),
                "the problems": fingerprint(learned.problems),
                "the problems held out": fingerprint(learned.evaluation),
                "arms, judge, writer and prompts": fingerprint([facts]),
            }
        )
        recipe = make_recipe(settle(context, facts), learned, planned)
        recipe.run()

        def write() -> None:
            finish(recipe)
            display.times(context.seconds)
            write_figures(context.folder)
            report = write_report(context.folder)
            display.say(f"Report: {linked(context.home / report.name)}")

        on_first_slowly(write)


def resume_rules(arms: Sequence[Arm]) -> ResumeRules:
    """Which settings a resumed run may change."""
    free: dict[str, tuple[str, ...]] = dict.fromkeys((*_FREE, *MAY_CHANGE), ())
    return ResumeRules(
        phases=tuple(phase.name for phase in phases_of(arms)),
        fixed_by=free,
        advice="Name, runs, only, processes, mesh, evaluation, checkpoints, guards, "
        "trackers, profile, where a server of the sampler is, and how much feedback "
        "may cost or be missing may change. ",
    )
