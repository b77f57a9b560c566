"""The plan of a run: all that was found, and what follows from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

from fdjax.plan.advice import Advice, advise
from fdjax.plan.bounds import Bounds, bounds
from fdjax.plan.collectives import summed
from fdjax.plan.compiling import Compiled, compile_job
from fdjax.plan.programs import Job, jobs
from fdjax.plan.residency import Moment, moments
from fdjax.plan.subject import PROMPT, Subject

__all__ = ["Plan", "make_plan", "plan_of"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is known of a run before it runs."""

    subject: Subject
    compiled: Sequence[Compiled]
    moments: Sequence[Moment]
    bounds: Sequence[Bounds]
    """Of each phase."""

    @cached_property
    def advice(self) -> Sequence[Advice]:
        """What to change where it does not fit, the best first."""
        return tuple(advise(self.subject, self.moments))

    @property
    def fits(self) -> bool:
        """Whether all of it does, at all times."""
        return all(moment.fits for moment in self.moments)

    @property
    def notes(self) -> Sequence[str]:
        """What was taken for granted."""
        found = [
            "Bounds: every attempt is as long as it may be, every program reaches its "
            "roofline, and devices wait for nobody."
        ]
        if self.subject.config.attempts.prompt_tokens is None:
            found.append(
                f"No problem was read: prompts are taken to have {PROMPT:,} tokens; "
                "--attempts.prompt-tokens says otherwise."
            )
        if self.subject.slotting is None:
            found.append("A server samples: its memory and time are its own.")
        elif self.subject.writer is not None:
            found.append(
                "The policy reviews its own attempts: its slots have room for that, "
                "but no bound counts the time; an iteration takes longer."
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """All figures: bytes, seconds, FLOPs of each device."""
        subject = self.subject
        return {
            "policy": subject.config.policy.source,
            "topology": subject.topology,
            "chips": subject.chips,
            "mesh": dict(subject.mesh.shape),
            "usable_bytes": subject.chip.usable_bytes,
            "fits": self.fits,
            "versions": {"jax": jax.__version__, "libtpu": _version("libtpu")},
            "programs": [_program(each) for each in self.compiled],
            "moments": [
                {
                    "phase": moment.phase,
                    "name": moment.name,
                    "program": moment.program,
                    "bytes": dict(moment.parts),
                    "fits": moment.fits,
                }
                for moment in self.moments
            ],
            "bounds": [_bounds(each) for each in self.bounds],
            "advice": [
                {
                    "change": each.change,
                    "saves_bytes": each.saves,
                    "enough": each.enough,
                    "alters": each.alters,
                }
                for each in self.advice
            ],
            "notes": list(self.notes),
        }


def make_plan(
    subject: Subject, starts: Callable[[Job, int, int], object] = lambda *_: None
) -> Plan:
    """Compiles all programs of a run, and counts.

    Args:
      subject: the run.
      starts: called before each program with its number, from 0, and that of all.
    """
    every, compiled = list(jobs(subject)), []
    for number, job in enumerate(every):
        starts(job, number, len(every))
        compiled.append(compile_job(job, subject.chip.usable_bytes))
    return plan_of(subject, compiled)


def plan_of(subject: Subject, compiled: Sequence[Compiled]) -> Plan:
    """What follows from programs of a run.

    Args:
      subject: the run.
      compiled: all its programs; or some, for what is known without the others.
    """
    return Plan(
        subject=subject,
        compiled=tuple(compiled),
        moments=tuple(moments(subject, compiled)),
        bounds=tuple(bounds(subject, phase, compiled) for phase in subject.phases),
    )


def _program(each: Compiled) -> dict[str, Any]:
    return {
        "name": each.name,
        "about": each.about,
        "compile_s": round(each.seconds, 1),
        "peak_bytes": each.peak,
        "argument_bytes": each.arguments,
        "temporary_bytes": each.temporaries,
        "refusal": each.refusal,
        "received_bytes": {
            kind: round(size) for kind, size in summed(each.collectives).items()
        },
        "collectives": [
            {
                "kind": one.kind,
                "shape": one.shape,
                "bytes": one.size,
                "group": one.group,
                "times": one.times,
            }
            for one in each.collectives
        ],
    }


def _bounds(each: Bounds) -> dict[str, Any]:
    return {
        "phase": each.phase,
        "iteration_s": each.seconds,
        "tokens_a_second_a_chip": each.tokens_a_second,
        "hours_a_1000_iterations": each.hours,
        "stages": [
            {
                "name": stage.name,
                "count": stage.count,
                "flops": stage.work.flops,
                "moved_bytes": stage.work.moved,
                "received_bytes": stage.received,
                "compute_s": stage.floor.compute_s,
                "memory_s": stage.floor.memory_s,
                "links_s": stage.floor.links_s,
                "binds": stage.floor.binds,
            }
            for stage in each.stages
        ],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
