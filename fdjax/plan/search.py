"""Which mesh, remat and microbatches fit, and are fastest by their bound."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fdjax.errors import ConfigError
from fdjax.model.config import Remat
from fdjax.plan.bounds import bounds
from fdjax.plan.compiling import Compiled, compile_job
from fdjax.plan.programs import DECODE, Job, jobs
from fdjax.plan.residency import held, moments, sampler_held
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
    """A candidate that was compiled."""

    candidate: Candidate
    seconds: float
    """Of an iteration at least, mean of all phases."""
    fits: bool
    excess: int
    """Bytes beyond the chip's memory where it is tightest; negative where some are
    free."""


def search(
    subject: Subject, says: Callable[[str], object] = lambda text: None
) -> tuple[Subject | None, list[Found]]:
    """The fastest run by its bound, among those that fit.

    Each mesh with each remat is one family: more microbatches need less memory and more
    time. Families are tried in the order of their best bound; in each the least number
    that fits is bisected, with compiled steps. One whose best bound is no better than
    what was found is not compiled, nor one that holds more than the chip has. Slots are
    as many as there is room for beside what stays.

    Args:
      subject: the run as its settings say.
      says: called with what is tried.

    Returns:
      The run with the settings found, or None where none fits; and all that was tried.
    """
    tried: list[Found] = []
    best: tuple[float, Subject] | None = None
    families = list(candidates(subject))
    families.sort(key=lambda family: _seconds(subject, family[0]))
    for family in families:
        if best is not None and _seconds(subject, family[0]) >= best[0]:
            continue

        def fits(index: int, family: Sequence[Candidate] = family) -> bool:
            candidate = family[index]
            says(str(candidate))
            run = _applied(subject, candidate)
            compiled = [compile_job(job, run.chip.usable_bytes) for job in _steps(run)]
            tight = max(moments(run, compiled), key=lambda moment: moment.excess)
            seconds = _bound(run, compiled)
            tried.append(
                Found(
                    candidate=candidate,
                    seconds=seconds,
                    fits=tight.fits,
                    excess=tight.excess,
                )
            )
            return tight.fits

        least = bisect_least(len(family), fits)
        if least is None:
            continue
        found = next(one for one in tried if one.candidate is family[least])
        if best is None or found.seconds < best[0]:
            best = found.seconds, _applied(subject, family[least])
    return (None if best is None else best[1]), tried


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


def _steps(run: Subject) -> Iterator[Job]:
    """What needs most, and takes longest."""
    for job in jobs(run):
        if job.phases or job.name == DECODE:
            yield job


def _seconds(subject: Subject, candidate: Candidate) -> float:
    """Of an iteration at least, without compiling anything."""
    return _bound(_applied(subject, candidate), ())


def _bound(run: Subject, compiled: Sequence[Compiled]) -> float:
    """Mean of all iterations."""
    total = sum(
        phase.steps * bounds(run, phase, compiled).seconds for phase in run.phases
    )
    return total / sum(phase.steps for phase in run.phases)
