"""`fdjax plan`: an experiment's settings, a slice of TPUs, and what comes of both."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed

from fdjax.encoding import encode
from fdjax.errors import ConfigError
from fdjax.files import write_whole
from fdjax.plan.display import print_plan, print_search
from fdjax.plan.page import plan_page
from fdjax.plan.report import Plan, make_plan
from fdjax.plan.search import Found, search
from fdjax.plan.subject import Experiment, Subject, find_experiment
from fdjax.plan.topology import prepare

__all__ = ["PlanOptions", "plan_experiment"]

_UNFIT = 1


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What is planned for, and where it is written."""

    topology: str
    """Slice: v5e:4x4, v5p:2x4x4 (32 chips, sold as v5p-64), v6e:8x8, tpu7x:2x2x1 …"""
    search: bool = False
    """Look for microbatches, remat, mesh and slots that fit and are fastest by the
    bound; compiles a step for each that it tries, and all programs of the best."""
    json: Path | None = None
    """File for all figures."""
    page: Path | None = None
    """File for an HTML page with a bar of memory for each phase; it loads nothing."""


def plan_experiment(arguments: Sequence[str]) -> int:
    """Says what a run of an experiment needs of a slice, and writes it.

    Args:
      arguments: module of the experiment, then options and the experiment's own flags.

    Returns:
      The exit code: 0 the run fits, 1 it does not, 2 bad input or no compiler.

    Raises:
      ConfigError: the module is no experiment, or settings do not fit one another.
      InstallError: the TPU's compiler is missing.
    """
    name, *flags = arguments
    experiment = find_experiment(name)
    asked = tyro.cli(_with_flags(experiment), args=flags, prog=f"fdjax plan {name}")
    options: PlanOptions = asked.options
    config = asked.run.resolved()
    if not config.policy.source:
        raise ConfigError(
            "expected a policy to plan for, got none: give --policy, such as qwen3-8b "
            "or a folder with config.json"
        )
    prepare()
    subject = Subject(
        config=config,
        arms=tuple(experiment.arms(config)),
        topology=options.topology,
    )
    console, found, tried = Console(), None, []
    if options.search:
        found, tried = _searched(console, subject)
        print_search(console, tried)
        if found is None:
            console.print("[bold red]Nothing fits[/]; as the settings are:")
    plan = found or _planned(console, subject)
    print_plan(console, plan)
    _write(plan, tried, options)
    return 0 if plan.fits else _UNFIT


def _with_flags(experiment: Experiment) -> Any:
    """A dataclass of the options and of the experiment's settings, as one command."""
    flat = tyro.conf.arg(name="")
    return dataclasses.make_dataclass(
        "Plan",
        [
            ("options", Annotated[PlanOptions, flat]),
            (
                "run",
                Annotated[type(experiment.config), flat],
                dataclasses.field(default=experiment.config),
            ),
        ],
        kw_only=True,
        frozen=True,
    )


def _planned(console: Console, subject: Subject) -> Plan:
    columns = (
        TextColumn("Compile"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        Elapsed(),
        TextColumn("[dim]{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=None)

        def starts(job: Any, number: int, total: int) -> None:
            progress.update(
                bar, completed=number, total=total, description=escape(job.name)
            )

        return make_plan(subject, starts)


def _searched(console: Console, subject: Subject) -> tuple[Plan | None, list[Found]]:
    with console.status("Search") as status:
        return search(subject, lambda text: status.update(f"Compile: {escape(text)}"))


def _write(plan: Plan, tried: Sequence[Found], options: PlanOptions) -> None:
    if options.json is not None:
        rows = [
            {
                "settings": str(found.candidate),
                "iteration_s": found.seconds,
                "fits": found.fits,
                "excess_bytes": found.excess,
                "chosen": found.chosen,
            }
            for found in tried
        ]
        write_whole(options.json, encode(plan.to_json() | {"search": rows}, indent=1))
    if options.page is not None:
        write_whole(options.page, plan_page(plan).encode())
