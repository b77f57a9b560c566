"""What is on a device together, bounds, advice and search, with programs by hand."""

from dataclasses import replace

import pytest

from fdjax.plan import advice as advising
from fdjax.plan import search as searching
from fdjax.plan.bounds import bounds, exchanged
from fdjax.plan.chips import GIB
from fdjax.plan.programs import DECODE, jobs
from fdjax.plan.residency import held, moments, sampler_held, tightest
from fdjax.plan.roofline import floor
from fdjax.plan.search import bisect_least, candidates, search
from fdjax.plan.sizes import SIZES
from fdjax.run import MeshConfig, PolicyConfig
from fdjax.run.config import SamplerConfig
from planning import ATTEMPTS, compiled, on_cpus, subject


@pytest.fixture(autouse=True)
def cpus(monkeypatch):
    on_cpus(monkeypatch)


def test_parts_of_each_moment_add_up():
    run = subject()
    found = {
        (one.phase, one.program): one for one in moments(run, compiled(run, step=3.0))
    }
    always, sampler = held(run, run.phases[0]), sampler_held(run)
    sampling = found["fd", DECODE]
    # Peak of decoding, its own weights and pages in it, and what stays beside.
    assert sampling.size == 2 * GIB + sum(always.values())
    assert sampling.parts["sampler's pages"] == sampler["pages"]
    step = found["fd", "fd step"]
    assert step.size == 3 * GIB + always["pretrained"]
    assert "sampler's pages" not in step.parts
    # GRPO has no teacher.
    assert "teacher" in always
    assert "teacher" not in found["fd_then_grpo", "fd_then_grpo step"].parts
    assert all(one.fits for one in found.values())


def test_equal_phases_share_a_step():
    run = subject(grpo_steps=0)
    twice = replace(run.phases[0], name="again", steps=1)
    arm = replace(run.arms[0], phases=(run.phases[0], twice))
    steps = [job for job in jobs(replace(run, arms=(arm,))) if job.phases]
    assert [job.phases for job in steps] == [("fd", "again")]


def test_bounds_of_an_iteration_by_hand():
    run = subject()
    found = bounds(run, run.phases[1])
    assert [stage.name for stage in found.stages] == [
        *("prompts", "tokens", "optimizer steps"),
    ]
    # 64 attempts in 64 slots: as many steps as an attempt has tokens.
    assert found.stages[1].count == 64
    assert found.tokens == 64 * 64
    assert found.chips == 8
    assert found.seconds == pytest.approx(
        sum(
            stage.count * floor(run.chip, stage.work, stage.received).seconds
            for stage in found.stages
        )
    )
    assert found.hours == pytest.approx(1_000 * found.seconds / 3_600)
    fewer = run.with_settings(slots=32)
    assert bounds(fewer, fewer.phases[1]).stages[1].count == 128


def test_what_must_be_exchanged_by_hand():
    config = SIZES["tiny"]
    count = 2 * 256 * (8 * 128 + 4 * 128 + 3 * 512) + 2_048 * 256
    common = {"data": 1, "tensor": 1, "tokens": 800, "microbatches": 2}
    # Forward, repeated, backward and teacher in 2 bytes, the gradient in 4.
    assert exchanged(config, fsdp=4, teachers=1, trained=True, **common) == (
        2 * (4 * 2 + 4) * count * 3 / 4
    )
    assert exchanged(config, fsdp=1, teachers=1, trained=True, **common) == 0


def test_advice_that_is_enough_and_alters_nothing_comes_first():
    run = subject(microbatches=1)
    usable = run.chip.usable_gib
    moment = tightest(moments(run, compiled(run, step=usable + 1)))
    assert moment.program.endswith("step")
    found = advising.advise(run, moment)
    keys = [(not one.enough, bool(one.alters), -one.saves) for one in found]
    assert keys == sorted(keys)
    # Two microbatches halve 16 GiB of activations.
    assert found[0].change == f"microbatches of {moment.phase}: 2 in place of 1"
    assert found[0].enough
    assert any("policy.lora" in one.change and one.alters for one in found)


def test_advice_for_sampling_names_slots():
    run = subject(sampler=SamplerConfig(slots=64))
    moment = tightest(moments(run, compiled(run, decode=40.0)))
    assert moment.program == DECODE
    slots = next(
        one
        for one in advising.advise(run, moment)
        if one.change == "sampler.slots: 32 in place of 64"
    )
    assert slots.saves == sampler_held(run)["pages"] // 2


@pytest.mark.parametrize("least", range(7))
def test_bisection_asks_each_once(least):
    asked = []

    def fits(index):
        asked.append(index)
        return index >= least

    assert bisect_least(6, fits) == (least if least < 6 else None)
    assert len(asked) == len(set(asked)) <= 3


def test_search_takes_the_fastest_that_fits(monkeypatch):
    """A step as large as the rows of its microbatch, on any mesh."""
    run = subject(attempts=replace(ATTEMPTS, max_new_tokens=512))
    applied = []
    monkeypatch.setattr(
        searching, "_steps", lambda run: applied.append(run) or [None, None]
    )

    def compile_one(job, usable):
        tried = applied[-1]
        rows = 64 // tried.mesh.shape["fsdp"] // tried.phases[0].microbatches
        remat = 2 if tried.model.config.remat == "full" else 8
        size = 1.0 + remat * rows
        return next(
            one for one in compiled(tried, step=size) if one.phases and not one.refusal
        )

    monkeypatch.setattr(searching, "compile_job", compile_one)
    found, tried = search(run)
    assert found is not None
    fit = [one for one in tried if one.fits]
    best = min(fit, key=lambda one: (one.seconds, one.candidate.microbatches)).candidate
    assert found.model.config.remat == best.remat
    assert found.phases[0].microbatches == best.microbatches
    assert len(tried) < sum(map(len, candidates(run)))


def test_meshes_that_hold_too_much_are_not_tried():
    big = subject(policy=PolicyConfig(source="qwen3-32b"))
    # Eight chips of 15.75 GiB: not even parameters, moments and teacher.
    assert not list(candidates(big))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mesh": MeshConfig(fsdp=3)}, "product is the number of devices"),
        ({"microbatches": 5}, "divisible"),
        ({"attempts": replace(ATTEMPTS, max_new_tokens=5_000)}, "positions"),
        ({"sampler": SamplerConfig(tensor=3)}, "sampler.tensor"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        _ = subject(**changes).slotting
