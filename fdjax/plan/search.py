"""Which mesh, remat and microbatches fit, and are fastest by their bound."""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

from fdjax.errors import ConfigError
from fdjax.model.config import Remat
from fdjax.plan.compiling import Compiled, compile_job
from fdjax.plan.programs import DECODE, PREFILL, Job, jobs
from fdjax.plan.report import Plan, plan_of
from fdjax.plan.residency import PAGES, held, sampler_held, tightest
from fdjax.plan.subject import Subject
from fdjax.run.config import MeshConfig, SamplerConfig
from fdjax.sharding import batch_parts

__all__ = ["Candidate", "Found", "bisect_least", "candidates", "search"]

_REMATS: tuple[Remat, ...] = ("none", "named", "dots", "full")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Settings that the search may choose."""

    mesh: MeshConfig
    remat: Remat
    microbatches: int
    slots: int | None

    def __str__(self) -> str:
        slots = "" if self.slots is None else f", {self.slots} slots"
        return (
            f"fsdp {self.mesh.fsdp} × tensor {self.mesh.tensor}, remat {self.remat}, "
            f"{self.microbatches} microbatches{slots}"
        )


@dataclass(frozen=True, kw_only=True)
class Found:
    """A candidate that was compiled, and what its programs say."""

    candidate: Candidate
    seconds: float
    """Of an iteration at least, mean of all phases."""
    fits: bool
    excess: int
    """Bytes beyond the chip's memory where it is tightest; negative where some are
    free."""
    chosen: bool
    """Whether all of its programs fit, and none that does is faster."""


def search(
    subject: Subject, says: Callable[[str], object] = lambda text: None
) -> tuple[Plan | None, list[Found]]:
    """The fastest run by its bound, among those that fit.

    Each mesh with each remat is one family: more microbatches need less memory and more
    time. Families are tried in the order of their best bound; in each the least number
    whose steps fit is bisected, and then all other programs are compiled as well. One
    whose best bound is no better than what was found is not compiled, nor one that
    holds more than the chip has. Slots are as many as there is room for beside what
    stays, or a half, a quarter and so on, until the sampler's programs fit.

    Args:
      subject: the run as its settings say.
      says: called with what is compiled.

    Returns:
      The plan of the run with the settings found, or None where none fits; and all that
      was tried.
    """
    programs = _Programs(subject, says)
    chosen: Candidate | None = None
    least = math.inf
    families = [(_seconds(subject, each[0]), each) for each in candidates(subject)]
    for bound, family in sorted(families, key=lambda each: each[0]):
        if bound >= least:
            continue
        found = programs.first_that_fits(family)
        if found is not None and programs.seconds(found) < least:
            chosen, least = found, programs.seconds(found)
    tried = [
        Found(
            candidate=each,
            seconds=programs.seconds(each),
            fits=programs.known(each).fits,
            excess=tightest(programs.known(each).moments).excess,
            chosen=each == chosen,
        )
        for each in programs.tried
    ]
    return None if chosen is None else programs.known(chosen), tried


class _Programs:
    """What was compiled for candidates; each program once."""

    def __init__(self, subject: Subject, says: Callable[[str], object]) -> None:
        self.tried: list[Candidate] = []
        self._subject, self._says = subject, says
        self._compiled: dict[Hashable, Compiled] = {}
        self._fallen: set[MeshConfig] = set()

    def first_that_fits(self, family: Sequence[Candidate]) -> Candidate | None:
        """With the fewest microbatches and the most slots with which all fits."""
        mesh = family[0].mesh
        if mesh in self._fallen:
            return None
        index = bisect_least(len(family), lambda i: self._steps(family[i]).fits)
        if index is None:
            return None
        for each in self._with_fewer_slots(family[index]):
            plan = self._plan(each)
            if plan.fits:
                return each
            if any(PAGES not in one.parts for one in plan.moments if not one.fits):
                break
        # Nothing of a step matters to those programs: they fit with no remat.
        self._fallen.add(mesh)
        return None

    def known(self, candidate: Candidate) -> Plan:
        """Of what is compiled so far, for whichever candidate."""
        return self._plan(
            candidate, lambda job: _same(job, candidate) in self._compiled
        )

    def seconds(self, candidate: Candidate) -> float:
        """Of an iteration at least."""
        return _mean(self.known(candidate))

    def _steps(self, candidate: Candidate) -> Plan:
        return self._plan(candidate, lambda job: bool(job.phases))

    def _plan(
        self, candidate: Candidate, wanted: Callable[[Job], bool] = lambda job: True
    ) -> Plan:
        if candidate not in self.tried:
            self.tried.append(candidate)
        run = _applied(self._subject, candidate)
        compiled = []
        for job in filter(wanted, jobs(run)):
            key = _same(job, candidate)
            if key not in self._compiled:
                self._says(f"{candidate}: {job.name}")
                self._compiled[key] = compile_job(job, run.chip.usable_bytes)
            compiled.append(self._compiled[key])
        return plan_of(run, compiled)

    def _with_fewer_slots(self, candidate: Candidate) -> Iterator[Candidate]:
        """Itself, and with half as many again and again."""
        yield candidate
        made, slots = _applied(self._subject, candidate).slotting, candidate.slots
        if made is None or slots is None:
            return
        parts = batch_parts(made.mesh)
        while slots >= 2 * parts:
            slots = slots // (2 * parts) * parts
            yield replace(candidate, slots=slots)


def _same(job: Job, candidate: Candidate) -> Hashable:
    """What is the same of two candidates for which a program is the same."""
    if job.phases:
        return job.name, candidate.mesh, candidate.remat, candidate.microbatches
    if job.name in (PREFILL, DECODE):
        return job.name, candidate.mesh, candidate.slots
    return job.name, candidate.mesh


def bisect_least(count: int, fits: Callable[[int], bool]) -> int | None:
    """The first index that fits, where all after one that fits do, too.

    Args:
      count: of indices.
      fits: whether one does; asked once of each at most, about log₂ of them.

    >>> bisect_least(5, lambda index: index >= 3)
    3
    """
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    return low if low < count else None


def candidates(subject: Subject) -> Iterator[list[Candidate]]:
    """Families of settings that divide, each from few microbatches to many.

    Those that hold more than the chip has, before anything is computed, are left out.
    """
    devices, rows = subject.mesh.size, subject.config.attempts.batch_size
    for tensor in (1, 2, 4, 8, 16):
        if devices % tensor:
            continue
        mesh = MeshConfig(data=1, fsdp=devices // tensor, tensor=tensor)
        parts = rows // mesh.fsdp
        if rows % mesh.fsdp:
            continue
        try:
            run = subject.with_settings(mesh=mesh, microbatches=1)
            always = max(sum(held(run, phase).values()) for phase in run.phases)
            slots = _slots(run, subject.chip.usable_bytes - always)
        except ConfigError:
            # Heads, inner layer, width or vocabulary do not divide.
            continue
        if always >= subject.chip.usable_bytes or slots == 0:
            continue
        for remat in _REMATS:
            yield [
                Candidate(mesh=mesh, remat=remat, microbatches=count, slots=slots)
                for count in range(1, parts + 1)
                if parts % count == 0 and not count & (count - 1)
            ]


def _slots(run: Subject, room: int) -> int | None:
    """Slots for which there is room; 0 for none, None where a server samples."""
    made = run.slotting
    if made is None or not isinstance(run.config.sampler, SamplerConfig):
        return None
    parts, attempts = batch_parts(made.mesh), run.config.attempts
    rounds = 0
    total = attempts.problems * attempts.group_size
    while True:
        rounds += 1
        slots = -(-total // (rounds * parts)) * parts
        sampler = sampler_held(run.with_settings(slots=slots))
        # A tenth is left for what decoding computes.
        if 1.1 * sum(sampler.values()) <= room:
            return slots
        if slots == parts:
            return 0


def _applied(subject: Subject, candidate: Candidate) -> Subject:
    return subject.with_settings(
        mesh=candidate.mesh,
        remat=candidate.remat,
        microbatches=candidate.microbatches,
        slots=candidate.slots,
    )


def _seconds(subject: Subject, candidate: Candidate) -> float:
    """Of an iteration at least, without compiling anything."""
    return _mean(plan_of(_applied(subject, candidate), ()))


def _mean(plan: Plan) -> float:
    """Seconds of an iteration at least, of all phases."""
    steps = {phase.name: phase.steps for phase in plan.subject.phases}
    total = sum(steps[each.phase] * each.seconds for each in plan.bounds)
    return total / sum(steps.values())
