"""Metrics, samples and events of a run on disk, and the time its stages take."""

from fdjax.metrics.events import Event, EventWriter, read_events
from fdjax.metrics.timing import StageTimer
from fdjax.metrics.writer import MetricsWriter, SampleWriter, read_metrics

__all__ = [
    "Event",
    "EventWriter",
    "MetricsWriter",
    "SampleWriter",
    "StageTimer",
    "read_events",
    "read_metrics",
]
