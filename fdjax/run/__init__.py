"""Runs: settings, folder, screen, and the recipe that trains a pretrained policy."""

from fdjax.processes import ProcessesConfig
from fdjax.run.config import (
    AttemptsConfig,
    EvaluationConfig,
    MeshConfig,
    PolicyConfig,
    RunConfig,
)
from fdjax.run.context import RunContext
from fdjax.run.experiment import experiment, run_experiment
from fdjax.run.probe import Probe, probe
from fdjax.run.probes import read_probes
from fdjax.run.recipe import Recipe
from fdjax.run.seeds import SeedProbes
from fdjax.run.task import Arm, Task

__all__ = [
    "Arm",
    "AttemptsConfig",
    "EvaluationConfig",
    "MeshConfig",
    "PolicyConfig",
    "Probe",
    "ProcessesConfig",
    "Recipe",
    "RunConfig",
    "RunContext",
    "SeedProbes",
    "Task",
    "experiment",
    "probe",
    "read_probes",
    "run_experiment",
]
