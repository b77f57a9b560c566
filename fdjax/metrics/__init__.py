"""Metrics of a run on disk, and the time its stages take."""

from fdjax.metrics.timing import StageTimer
from fdjax.metrics.writer import MetricsWriter, read_metrics

__all__ = ["MetricsWriter", "StageTimer", "read_metrics"]
