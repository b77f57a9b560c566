"""Figures and the report of a run, made from its files alone."""

from fdjax.plots.report import write_report

__all__ = ["write_report"]
