"""Figures and the report of a run, made from its files alone."""

from fdjax.plots.curves import run_figures, write_figures
from fdjax.plots.lines import Line, lines_of
from fdjax.plots.report import write_comparison, write_report
from fdjax.plots.run_files import RunFiles, read_run, read_runs
from fdjax.plots.tables import headline_ks

__all__ = [
    "Line",
    "RunFiles",
    "headline_ks",
    "lines_of",
    "read_run",
    "read_runs",
    "run_figures",
    "write_comparison",
    "write_figures",
    "write_report",
]
