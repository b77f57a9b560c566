"""What is on a device together, bounds and advice, with programs by hand."""

from dataclasses import replace

import jax
import pytest

from fdjax.feedback import PolicyFeedback
from fdjax.model import LoRA, init_adapters
from fdjax.plan import advice as advising
from fdjax.plan.bounds import bounds, exchanged
from fdjax.plan.chips import GIB
from fdjax.plan.programs import ADAPTERS, DECODE, HAND_OVER, jobs
from fdjax.plan.report import plan_of
from fdjax.plan.residency import held, moments, sampler_held, tightest
from fdjax.plan.roofline import floor
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
    config = replace(SIZES["tiny"], remat="full")
    blocks = 2 * 256 * (8 * 128 + 4 * 128 + 3 * 512)
    common = {"tokens": 800, "microbatches": 2}
    alone = {"fsdp": 1, "data": 1, "tensor": 1}

    def of(teachers=1, trained=True, **sizes):
        sizes = alone | sizes
        return exchanged(config, teachers=teachers, trained=trained, **sizes, **common)

    # Forward, backward with what it repeats, teacher and gradient, in 2 bytes; no head.
    assert of(fsdp=4) == 2 * (3 + 1) * 2 * blocks * 3 / 4
    assert of(fsdp=4, trained=False) == 2 * 3 * 2 * blocks * 3 / 4
    assert of(fsdp=4, teachers=0) == 2 * (2 + 1) * 2 * blocks * 3 / 4
    # The gradient once more, reduced and handed out, whatever the microbatches.
    assert of(data=2) == 2 * 2 * blocks / 2
    assert of(data=2, trained=False) == 0
    # 800 rows of 256, twice in each of two layers and three passes.
    assert of(tensor=2) == 3 * 2 * 2 * (2 * 800 * 256 * 2 / 2)
    assert of() == 0


def test_adapters_are_handed_over_as_well():
    run = subject(policy=PolicyConfig(source="tiny", lora=LoRA()))
    found = {job.name: job for job in jobs(run)}
    names = list(found)
    assert names[names.index(HAND_OVER) + 1] == ADAPTERS
    copied = jax.tree.leaves(found[ADAPTERS].lower().out_info)
    fresh = jax.eval_shape(
        lambda: init_adapters(
            jax.random.key(0), run.model.init(jax.random.key(0)), LoRA()
        )
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(fresh))
    assert sum(leaf.size for leaf in copied) == count
    programs = [replace(one, phases=()) for one in compiled(run) if not one.phases]
    programs.append(replace(programs[0], name=ADAPTERS))
    rows = {(one.phase, one.program): one for one in moments(run, programs)}
    always = held(run, run.phases[0])
    both, base = (sampler_held(run, adapters=also)["weights"] for also in (True, False))
    # Each copies its own, beside what is there.
    for name, own in (
        (HAND_OVER, always["base"] + base),
        (ADAPTERS, always["adapters"] + both - base),
    ):
        assert rows["fd", name].parts["temporaries"] == GIB - own
    stages = [stage.name for stage in bounds(run, run.phases[0], programs).stages]
    assert stages[2:4] == ["weights to the sampler", "adapters to the sampler"]


def test_reviews_by_the_policy_are_said_to_be_in_no_bound():
    notes = " ".join(plan_of(subject(), ()).notes)
    assert "reviews" not in notes
    reviewed = subject(feedback=PolicyFeedback())
    notes = " ".join(plan_of(reviewed, ()).notes)
    assert "The policy reviews its own attempts" in notes
    # Their slots have room for it: 2,560 tokens where attempts take 112.
    assert reviewed.slotting.slots.longest == 2_048 + 512


def test_advice_that_is_enough_and_alters_nothing_comes_first():
    run = subject(microbatches=1)
    usable = run.chip.usable_gib
    programs = [
        replace(one, peak=GIB) if one.name.startswith("fd_then") else one
        for one in compiled(run, step=usable + 1)
    ]
    found = advising.advise(run, moments(run, programs))
    keys = [(not one.enough, bool(one.alters), -one.saves) for one in found]
    assert keys == sorted(keys)
    # Two microbatches halve 16 GiB of activations.
    assert found[0].change == "microbatches of fd: 2 in place of 1"
    assert found[0].enough
    assert any("policy.lora" in one.change and one.alters for one in found)


def test_a_change_is_enough_only_if_it_mends_every_moment():
    """Steps of both phases lack room, or a step and decoding."""
    run = subject(microbatches=1)
    usable = run.chip.usable_gib

    def enough(**sizes):
        found = advising.advise(run, moments(run, compiled(run, **sizes)))
        return {one.change for one in found if one.enough}

    both = enough(step=usable + 1)
    assert both
    assert not any("microbatches" in change for change in both)
    assert "attempts.max_new_tokens: 32 in place of 64" in both
    # Shorter attempts leave decoding with what does not grow with them.
    assert not enough(step=usable + 1, decode=usable + 1)


def test_advice_is_given_where_room_lacks():
    run = subject()
    assert advising.advise(run, moments(run, compiled(run))) == []


def test_advice_for_sampling_names_slots():
    run = subject(sampler=SamplerConfig(slots=64))
    found = moments(run, compiled(run, decode=40.0))
    assert tightest(found).program == DECODE
    slots = next(
        one
        for one in advising.advise(run, found)
        if one.change == "sampler.slots: 32 in place of 64"
    )
    assert slots.saves == sampler_held(run)["pages"] // 2


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
