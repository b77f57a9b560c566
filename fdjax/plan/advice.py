"""What to change where a run does not fit, and what each change would give."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fdjax.model import LoRA
from fdjax.plan.counts import block_weights, kept_bytes
from fdjax.plan.programs import ON_THE_SIDE
from fdjax.plan.residency import PAGES, Moment, held, sampler_held, tightest
from fdjax.plan.subject import Subject
from fdjax.run.config import SamplerConfig
from fdjax.sharding import batch_parts
from fdjax.train import BaseTeacher, LiveTeacher, PhaseConfig
from fdjax.train.teacher import SyncedTeacher

__all__ = ["Advice", "advise"]


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A change, and what it is worth where room is tightest."""

    change: str
    """In the names of the settings."""
    saves: int
    """Bytes on a device, as far as they are known without compiling anew."""
    enough: bool = False
    """Whether the run would fit with it alone, at all times."""
    alters: str = ""
    """What becomes of the run's numbers; empty where they stay as they are."""


def advise(subject: Subject, found: Sequence[Moment]) -> list[Advice]:
    """Changes that give room where it is tightest, the best first; none if all fits.

    First come those that are enough by themselves, among them those that alter no
    number of the run, and then those that save most.

    Args:
      subject: a run.
      found: all its moments.
    """
    lacking = [moment for moment in found if not moment.fits]
    if not lacking:
        return []
    saved = [
        {each.change: each.saves for each in _changes(subject, moment)}
        for moment in lacking
    ]
    ranked = [
        replace(
            each,
            enough=all(
                saves.get(each.change, 0) >= moment.excess
                for moment, saves in zip(lacking, saved, strict=True)
            ),
        )
        for each in _changes(subject, tightest(lacking))
        if each.saves > 0
    ]
    return sorted(
        ranked, key=lambda each: (not each.enough, bool(each.alters), -each.saves)
    )


def _changes(subject: Subject, moment: Moment) -> Iterator[Advice]:
    """All that give room at a moment."""
    phase = next(each for each in subject.phases if each.name == moment.phase)
    stepping = moment.program not in ON_THE_SIDE
    yield from _of_the_state(subject, phase, stepping=stepping)
    if "sampler's weights" in moment.parts:
        yield from _of_weights(subject)
    if PAGES in moment.parts:
        yield from _of_pages(subject)
    if stepping:
        yield from _of_a_step(subject, phase, moment)


def _of_a_step(
    subject: Subject, phase: PhaseConfig, moment: Moment
) -> Iterator[Advice]:
    """Less to keep for the backward pass."""
    attempts, model = subject.config.attempts, subject.model.config
    temporaries = moment.parts.get("temporaries", 0)
    # The gradient stays whole, however the batch is cut.
    of_batch = max(0, temporaries - _gradient(subject))
    rows = attempts.batch_size // batch_parts(subject.mesh)
    parts = phase.microbatches
    options = [
        n for n in range(parts + 1, rows + 1) if rows % n == 0 and n % parts == 0
    ]
    if options:
        saved = {n: round(of_batch * (1 - parts / n)) for n in options}
        most = options[-1]
        enough = (n for n in options if saved[n] >= moment.excess)
        chosen = next(enough, most)
        yield Advice(
            change=f"microbatches of {phase.name}: {chosen} in place of {parts}",
            saves=saved[chosen],
        )
    if model.remat != "full":
        tokens = rows * (subject.prompt_width + attempts.max_new_tokens) / parts
        more = kept_bytes(model, tokens) - kept_bytes(
            replace(model, remat="full"), tokens
        )
        shared = subject.mesh.shape["tensor"]
        yield Advice(
            change=f"policy.remat: full in place of {model.remat}",
            saves=round(more / shared),
        )
    width = attempts.max_new_tokens
    share = width / (subject.prompt_width + width) / 2
    yield Advice(
        change=f"attempts.max_new_tokens: {width // 2} in place of {width}",
        saves=round(of_batch * share),
        alters="attempts end earlier",
    )


def _of_weights(subject: Subject) -> Iterator[Advice]:
    """Fewer copies of the weights to sample with."""
    made, config = subject.slotting, subject.model.config
    assert made is not None
    tensor = made.mesh.shape["tensor"]
    sizes = (
        *(subject.mesh.size, config.num_heads, config.num_kv_heads),
        *(config.intermediate_size, config.vocab_size),
    )
    if all(size % (2 * tensor) == 0 for size in sizes):
        yield Advice(
            change=f"sampler.tensor: {2 * tensor} in place of {tensor}",
            saves=sampler_held(subject)["weights"] // 2,
        )


def _of_pages(subject: Subject) -> Iterator[Advice]:
    """Fewer or shorter rows."""
    made, sampler = subject.slotting, sampler_held(subject)
    settings = subject.config.sampler
    assert made is not None
    assert isinstance(settings, SamplerConfig)
    pages, parts = sampler["pages"], batch_parts(made.mesh)
    slots = made.slots.slots
    if slots // 2 >= parts:
        yield Advice(
            change=f"sampler.slots: {slots // 2} in place of {slots}",
            saves=pages // 2,
        )
    capacity = made.slots.capacity or slots * made.slots.columns * made.slots.page
    yield Advice(
        change=f"sampler.capacity: {capacity // 2} tokens in place of {capacity}, "
        "where few attempts get long",
        saves=pages // 2,
    )
    width = subject.config.attempts.max_new_tokens
    yield Advice(
        change=f"attempts.max_new_tokens: {width // 2} in place of {width}",
        saves=round(pages * width / made.slots.longest / 2),
        alters="attempts end earlier",
    )


def _of_the_state(
    subject: Subject, phase: PhaseConfig, *, stepping: bool
) -> Iterator[Advice]:
    """Less to hold from step to step, and in a step a smaller gradient."""
    always = held(subject, phase)
    together = sum(always.values())
    shape = subject.mesh.shape
    if shape["data"] > 1:
        yield Advice(
            change=f"mesh.fsdp: {shape['fsdp'] * shape['data']}, mesh.data: 1",
            saves=round(together * (1 - 1 / shape["data"])),
        )
    teacher = phase.held_teacher
    if always.get("teacher"):
        if isinstance(teacher, BaseTeacher | SyncedTeacher) and (
            teacher.dtype == "float32"
        ):
            yield Advice(
                change=f"teacher of {phase.name}: dtype bfloat16",
                saves=always["teacher"] // 2,
                alters="the teacher is rounded",
            )
        if not isinstance(teacher, LiveTeacher):
            yield Advice(
                change=f"teacher of {phase.name}: LiveTeacher, which holds no weights",
                saves=always["teacher"],
                alters="the teacher follows every step",
            )
    if phase.optimizer.mu_dtype == "float32":
        yield Advice(
            change=f"optimizer of {phase.name}: mu_dtype bfloat16",
            saves=always["moments"] // 4,
            alters="the first moment is rounded",
        )
    if subject.config.policy.lora is None:
        lora = LoRA()
        adapted = _held_with(subject, phase, lora)
        yield Advice(
            change=f"policy.lora of rank {lora.rank}",
            saves=together - adapted + (_gradient(subject) if stepping else 0),
            alters="adapters are trained, not all weights",
        )
    yield Advice(
        change=f"a slice of twice the chips, {2 * subject.chips}, over fsdp",
        saves=together // 2,
    )


def _gradient(subject: Subject) -> int:
    """Bytes of the gradient of all weights on a device, in float32."""
    if subject.config.policy.lora is not None:
        return 0
    config = subject.model.config
    count = block_weights(config) + config.vocab_size * config.hidden_size
    shape = subject.mesh.shape
    return round(4 * count / (shape["fsdp"] * shape["tensor"]))


def _held_with(subject: Subject, phase: PhaseConfig, lora: LoRA) -> int:
    config = subject.config
    adapted = replace(
        subject, config=replace(config, policy=replace(config.policy, lora=lora))
    )
    return sum(held(adapted, phase).values())
