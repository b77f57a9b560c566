"""Other places for a run's metrics, beside metrics.jsonl: TensorBoard and W&B."""

from fdjax.metrics.trackers.config import TrackersConfig
from fdjax.metrics.trackers.tracker import Tracker, Tracking

__all__ = ["Tracker", "TrackersConfig", "Tracking"]
