"""Figures and the report of a run, made from its files alone."""

from fdjax.plots.curves import run_figures, write_figures
from fdjax.plots.report import write_report
from fdjax.plots.run_files import RunFiles, read_run
from fdjax.plots.tables import headline_ks

__all__ = [
    "RunFiles",
    "headline_ks",
    "read_run",
    "run_figures",
    "write_figures",
    "write_report",
]
