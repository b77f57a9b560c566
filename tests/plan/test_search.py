"""The search, with a compiler that says what it is told: what is tried and chosen."""

from dataclasses import replace

import pytest

from fdjax.plan import search as searching
from fdjax.plan.programs import DECODE, GAP, ON_THE_SIDE, jobs
from fdjax.plan.report import plan_of
from fdjax.plan.search import bisect_least, candidates, search
from fdjax.run import PolicyConfig
from planning import ATTEMPTS, compiler, on_cpus, subject

LONG = replace(ATTEMPTS, max_new_tokens=512)
USABLE = 15.75
"""GiB of the chip."""


@pytest.fixture(autouse=True)
def cpus(monkeypatch):
    on_cpus(monkeypatch)


def _found(monkeypatch, size, **changes):
    """What a search chooses and tries, and what it compiles."""
    compile_job, compiled = compiler(size), []

    def noting(job, usable):
        compiled.append((job.lower.args[0], job.name))
        return compile_job(job, usable)

    monkeypatch.setattr(searching, "compile_job", noting)
    plan, tried = search(subject(attempts=LONG, **changes))
    return plan, tried, compiled


def _step(run):
    """GiB of a step as large as the rows of its microbatch, on any mesh."""
    rows = 64 // run.mesh.shape["fsdp"] // run.phases[0].microbatches
    return 1 + (2 if run.model.config.remat == "full" else 8) * rows


def _chosen(tried):
    [one] = [one for one in tried if one.chosen]
    return one


def _fastest(size, run):
    """Of all candidates, each with all programs, the fastest that fits."""
    compile_job, best = compiler(size), None
    for family in candidates(run):
        for each in family:
            applied = searching._applied(run, each)
            plan = plan_of(applied, [compile_job(job, 0) for job in jobs(applied)])
            seconds = searching._mean(plan)
            if plan.fits and (best is None or seconds < best[0]):
                best = seconds, each
    return best


@pytest.mark.parametrize("least", range(7))
def test_bisection_asks_each_once(least):
    asked = []

    def fits(index):
        asked.append(index)
        return index >= least

    assert bisect_least(6, fits) == (least if least < 6 else None)
    assert len(asked) == len(set(asked)) <= 3


def test_the_fastest_that_fits_is_chosen_of_all(monkeypatch):
    def size(run, name):
        return 1.0 if name in ON_THE_SIDE else _step(run)

    plan, tried, compiled = _found(monkeypatch, size)
    seconds, best = _fastest(size, subject(attempts=LONG))
    chosen = _chosen(tried)
    assert chosen.candidate == best
    assert chosen.seconds == pytest.approx(seconds)
    # Of eight devices, two of which may share a layer's products.
    assert (best.mesh.fsdp, best.mesh.tensor) == (8, 1)
    assert best.slots == 64
    # The plan is of that run, with all of its programs, and fits.
    assert plan.fits
    assert dict(plan.subject.mesh.shape) == {"data": 1, "fsdp": 8, "tensor": 1}
    assert plan.subject.model.config.remat == best.remat
    assert {one.microbatches for one in plan.subject.phases} == {best.microbatches}
    assert plan.subject.slotting.slots.slots == 64
    assert [one.name for one in plan.compiled] == [
        job.name for job in jobs(plan.subject)
    ]
    # Less is compiled than there is, and what is no step once a mesh.
    assert len(tried) < sum(map(len, candidates(subject(attempts=LONG))))
    meshes = [run.mesh.shape["tensor"] for run, name in compiled if name == GAP]
    assert len(meshes) == len(set(meshes))


def test_a_mesh_whose_other_programs_do_not_fit_gives_way(monkeypatch):
    """Its steps fit and are the fastest."""

    def size(run, program):
        if program in ON_THE_SIDE:
            whole = run.mesh.shape["tensor"] == 1
            return USABLE + 1 if whole and program == GAP else 1.0
        return _step(run)

    plan, tried, _ = _found(monkeypatch, size)
    assert plan.fits
    chosen = _chosen(tried).candidate
    assert chosen == _fastest(size, subject(attempts=LONG))[1]
    assert (chosen.mesh.fsdp, chosen.mesh.tensor) == (4, 2)
    # That it does not fit is said of all that was tried there.
    fallen = [one for one in tried if one.candidate.mesh.tensor == 1]
    assert fallen
    assert not any(one.fits for one in fallen)
    # One family of that mesh is enough to know it.
    assert len({one.candidate.remat for one in fallen}) == 1


def test_fewer_slots_are_tried_before_a_mesh_falls(monkeypatch):
    """Decoding fits with 16 slots, of 64 for which pages have room."""

    def size(run, name):
        if name == DECODE:
            return run.slotting.slots.slots * USABLE / 20
        return 1.0 if name in ON_THE_SIDE else _step(run)

    plan, tried, compiled = _found(monkeypatch, size)
    chosen = _chosen(tried).candidate
    assert (chosen.mesh.tensor, chosen.slots) == (1, 16)
    assert plan.fits
    assert plan.subject.slotting.slots.slots == 16
    decoding = [
        run.slotting.slots.slots
        for run, name in compiled
        if name == DECODE and run.mesh.shape["tensor"] == 1
    ]
    assert decoding == [64, 32, 16]
    # Nobody is told that 64 would do.
    assert {one.candidate.slots for one in tried if one.fits} == {16}


def test_nothing_fits(monkeypatch):
    plan, tried, _ = _found(monkeypatch, lambda run, name: USABLE + 1)
    assert plan is None
    assert tried
    assert not any(one.fits or one.chosen for one in tried)


def test_meshes_that_hold_too_much_are_not_tried():
    big = subject(policy=PolicyConfig(source="qwen3-32b"))
    # Eight chips of 15.75 GiB: not even parameters, moments and teacher.
    assert not list(candidates(big))


def test_what_is_no_step_is_the_same_for_every_step():
    """For all remats and microbatches of a mesh it is compiled once."""
    first = subject().with_settings(remat="none", microbatches=1)
    other = subject().with_settings(remat="full", microbatches=8)
    for one, two in zip(jobs(first), jobs(other), strict=True):
        if not one.phases:
            assert one.lower().as_text() == two.lower().as_text(), one.name
