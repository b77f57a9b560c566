"""Guards of a run: alarms on its metrics, and batches of skipped steps to look at."""

from fdjax.train.guards.alarm import Alarm, Beyond
from fdjax.train.guards.alarms import make_alarms
from fdjax.train.guards.config import Guard, GuardsConfig
from fdjax.train.guards.diagnosis import Diagnosis, make_diagnosis
from fdjax.train.guards.dump import Dump, read_dump
from fdjax.train.guards.guards import AlarmError, Guards

__all__ = [
    "Alarm",
    "AlarmError",
    "Beyond",
    "Diagnosis",
    "Dump",
    "Guard",
    "Guards",
    "GuardsConfig",
    "make_alarms",
    "make_diagnosis",
    "read_dump",
]
