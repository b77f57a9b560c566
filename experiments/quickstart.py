"""The paper in miniature: train a small Lean 4 prover with FD and GRPO, on real Lean.

Claims under test (arXiv:2605.30861): Feedback Distillation keeps a higher policy
entropy than GRPO and scales better in pass@k; GRPO started from an FD checkpoint beats
either alone. The run says of each whether its numbers show it.

Command: `python -m experiments.quickstart` (see `--help` for every setting).
Hardware: two CPU cores; the embedded Lean (`fdjax lean install`).
"""

import shutil
import sys
from pathlib import Path

import tyro
from rich.markup import escape

from experiments.miniature.comparison import compare
from experiments.miniature.config import ComparisonConfig
from experiments.miniature.resume import RESUME
from fdjax.errors import FdjaxError
from fdjax.lean import Limits, Verifier, WasmBackend
from fdjax.metrics import MetricsWriter, SampleWriter
from fdjax.plots import write_figures, write_report
from fdjax.run.console import Display
from fdjax.run.context import RunContext
from fdjax.run.folder import Run, begun_phases, open_run
from fdjax.sharding import make_mesh
from fdjax.train import StoppedError, stop_on_signal

__all__ = ["CONFIG", "main", "run"]

CONFIG = ComparisonConfig()


def run(config: ComparisonConfig, display: Display) -> Path:
    """Runs the comparison and returns its report.

    Raises:
      FdjaxError: bad input, said in one message.
      StoppedError: stopped on request; `resume` goes on.
    """
    folder = config.runs / config.name
    with open_run(folder, config, RESUME, resume=config.resume != "no") as opened:
        for note in opened.notes:
            display.say(f"[yellow]Since the run began:[/] {escape(note)}")
        try:
            return _run(config, display, opened)
        except StoppedError:
            raise
        except Exception as error:
            if config.resume == "no" and begun_phases(folder, RESUME):
                error.add_note(
                    "What was trained is kept: the corrected command goes on with "
                    "--resume."
                )
            elif config.resume == "no":
                # Nothing was trained: the corrected command must find its place free.
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _run(config: ComparisonConfig, display: Display, opened: Run) -> Path:
    folder = opened.folder
    with (
        stop_on_signal() as stop,
        Verifier(
            WasmBackend,
            workers=config.lean_workers,
            limits=Limits(wall_s=config.lean_timeout_s),
            cache_path=config.runs / "verdicts.sqlite",
        ) as verifier,
        MetricsWriter(folder / "metrics.jsonl") as writer,
        SampleWriter(folder / "samples.jsonl") as samples,
    ):
        context = RunContext(
            config=config,
            folder=folder,
            run=opened.id,
            mesh=make_mesh(data=-1),
            verifier=verifier,
            display=display,
            writer=writer,
            samples=samples,
            stop=stop,
        )
        evaluation = compare(context)
    display.summary("Held-out theorems", evaluation)
    display.times(context.seconds)
    write_figures(folder)
    report = write_report(folder)
    display.say(f"Report: [link=file://{report.absolute()}]{report}[/link]")
    return report


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 0 done, 2 bad input, 130 interrupted."""
    display = Display()
    try:
        config = tyro.cli(ComparisonConfig, default=CONFIG, args=arguments)
        run(config, display)
    except StoppedError as stopped:
        display.say(f"{stopped} The same command with --resume goes on.")
        return 130
    except (FdjaxError, OSError) as error:
        # JAX marks its own note, on tracebacks that nobody sees here, with a rule.
        notes = [
            note
            for note in getattr(error, "__notes__", [])
            if not note.startswith("---")
        ]
        display.say(f"[bold red]error[/] {escape(' '.join([str(error), *notes]))}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
