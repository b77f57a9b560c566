"""Metrics and samples of a run on disk, and the time its stages take."""

from fdjax.metrics.timing import StageTimer
from fdjax.metrics.writer import MetricsWriter, SampleWriter, read_metrics

__all__ = ["MetricsWriter", "SampleWriter", "StageTimer", "read_metrics"]
