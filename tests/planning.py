"""Runs to plan on CPU devices that stand for a slice, and programs as if compiled."""

from dataclasses import replace

import jax

from experiments import prover
from fdjax.plan import Subject
from fdjax.plan import subject as planned
from fdjax.plan.bounds import step_stage
from fdjax.plan.chips import GIB
from fdjax.plan.collectives import Collective
from fdjax.plan.compiling import Compiled
from fdjax.plan.programs import DECODE, EVALUATION, GAP, HAND_OVER, PREFILL
from fdjax.run import AttemptsConfig, MeshConfig, PolicyConfig

ATTEMPTS = AttemptsConfig(
    problems=8,
    group_size=8,
    max_new_tokens=64,
    prompt_tokens=32,
    feedback_tokens=16,
)


def on_cpus(monkeypatch):
    """Eight CPU devices in place of any slice."""
    monkeypatch.setattr(planned, "slice_devices", lambda topology: jax.devices())


def subject(**changes):
    """The prover's run for the tiny policy on eight devices called v5e."""
    config = replace(
        prover.CONFIG,
        policy=PolicyConfig(source="tiny"),
        mesh=MeshConfig(fsdp=8),
        attempts=ATTEMPTS,
    )
    config = replace(config, **changes)
    return Subject(config=config, arms=prover.arms(config), topology="v5e:2x4")


def compiled(run, *, step=2.0, decode=2.0):
    """All programs, with peaks in GiB of the steps and of decoding."""

    def program(name, peak, phases=()):
        return Compiled(
            name=name, about="", phases=phases, seconds=1.0, peak=round(peak * GIB)
        )

    steps = [program(f"{phase.name} step", step, (phase.name,)) for phase in run.phases]
    others = {HAND_OVER: 1.0, PREFILL: 1.0, DECODE: decode, GAP: 1.0, EVALUATION: 1.0}
    return [*steps, *(program(name, peak) for name, peak in others.items())]


def compiler(size):
    """A compiler that asks `size` for each program's peak in GiB.

    Steps exchange an eighth more than they must at least.

    Args:
      size: of a run with its settings, and a program's name.
    """

    def compile_job(job, usable):
        run = job.lower.args[0]
        exchanged = ()
        if job.phases:
            phase = next(one for one in run.phases if one.name == job.phases[0])
            least = round(step_stage(run, phase).received)
            # Of which each of eight receives seven eighths.
            moved = {"kind": "all-gather", "shape": "", "group": 8, "times": 1}
            exchanged = (Collective(size=least * 9 // 7, **moved),)
        return Compiled(
            name=job.name,
            about=job.about,
            phases=job.phases,
            seconds=1.0,
            peak=round(size(run, job.name) * GIB),
            collectives=exchanged,
        )

    return compile_job
