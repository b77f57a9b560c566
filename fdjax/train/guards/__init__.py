"""Guards of a run: alarms on its metrics, and batches of skipped steps to look at."""

from fdjax.train.guards.alarm import Alarm, Beyond
from fdjax.train.guards.alarms import ADVICE, make_alarms
from fdjax.train.guards.config import Guard, GuardsConfig
from fdjax.train.guards.diagnosis import Diagnose, Diagnosis, make_diagnosis
from fdjax.train.guards.dump import Dump, read_dump
from fdjax.train.guards.guards import UNGUARDED, AlarmError, Guards
from fdjax.train.guards.skips import Skips
from fdjax.train.guards.watch import Finding, Watch

__all__ = [
    "ADVICE",
    "UNGUARDED",
    "Alarm",
    "AlarmError",
    "Beyond",
    "Diagnose",
    "Diagnosis",
    "Dump",
    "Finding",
    "Guard",
    "Guards",
    "GuardsConfig",
    "Skips",
    "Watch",
    "make_alarms",
    "make_diagnosis",
    "read_dump",
]
