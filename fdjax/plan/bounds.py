"""Bounds on the time of an iteration: the floors of its programs, one after another."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fdjax.model import ModelConfig
from fdjax.plan.chips import Chip
from fdjax.plan.compiling import Compiled
from fdjax.plan.counts import (
    Work,
    block_weights,
    decode_work,
    prefill_work,
    step_work,
)
from fdjax.plan.programs import ADAPTERS, DECODE, HAND_OVER
from fdjax.plan.residency import held
from fdjax.plan.roofline import Floor, floor
from fdjax.plan.subject import Subject
from fdjax.sharding import batch_parts
from fdjax.train import EMATeacher, PhaseConfig

__all__ = ["Bounds", "Stage", "bounds", "exchanged", "step_stage"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What an iteration does with one program, all its executions together."""

    name: str
    chip: Chip
    work: Work
    """Of a device, once through the program."""
    received: float = 0.0
    """Bytes from other devices, likewise."""
    count: int = 1
    """Executions in an iteration; of decoding, tokens of each slot."""

    @property
    def floor(self) -> Floor:
        """Of all of them."""
        return floor(self.chip, self.work, self.received).times(self.count)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The least time of an iteration of a phase, and what follows from it.

    Every attempt is as long as it may be, every program reaches its floor, and devices
    wait for nobody: not for judges, writers or the host.
    """

    phase: str
    stages: Sequence[Stage]
    tokens: int
    """That an iteration samples."""
    chips: int

    @property
    def seconds(self) -> float:
        """Of an iteration, at least."""
        return sum(stage.floor.seconds for stage in self.stages)

    @property
    def tokens_a_second(self) -> float:
        """Sampled and learned from, a second and chip, at most."""
        return self.tokens / self.seconds / self.chips

    @property
    def hours(self) -> float:
        """Of 1,000 iterations, at least."""
        return self.seconds / 3.6


def bounds(
    subject: Subject, phase: PhaseConfig, compiled: Sequence[Compiled] = ()
) -> Bounds:
    """Bounds of a phase's iterations.

    What is exchanged is counted in the compiled programs, and where one is missing, as
    it must be at least (`exchanged`).

    Args:
      subject: the run.
      phase: one of its own.
      compiled: its programs.
    """
    by_name = {each.name: each for each in compiled if not each.refusal}
    stages, attempts = [], subject.config.attempts
    own = [each for each in by_name.values() if phase.name in each.phases]
    made = subject.slotting
    if made is not None:
        config, parts = subject.model.config, batch_parts(made.mesh)
        tensor, total = made.mesh.shape["tensor"], attempts.problems
        prompts = prefill_work(
            config,
            prompts=total / parts,
            length=subject.prompt_width,
            tensor=tensor,
            together=made.slots.blocks * made.slots.page,
        )
        token = decode_work(
            config,
            rows=made.slots.slots / parts,
            tensor=tensor,
            context=subject.prompt_width + attempts.max_new_tokens / 2,
        )
        rounds = math.ceil(total * attempts.group_size / made.slots.slots)
        stages += [
            Stage(name="prompts", chip=subject.chip, work=prompts),
            Stage(
                name="tokens",
                chip=subject.chip,
                work=token,
                received=by_name[DECODE].received if DECODE in by_name else 0.0,
                count=rounds * attempts.max_new_tokens,
            ),
        ]
        for name, what in ((HAND_OVER, "weights"), (ADAPTERS, "adapters")):
            if name not in by_name:
                continue
            copied = by_name[name]
            stages.append(
                Stage(
                    name=f"{what} to the sampler",
                    chip=subject.chip,
                    work=Work(moved=copied.arguments + copied.results),
                    received=copied.received,
                )
            )
    stages.append(step_stage(subject, phase, own[0].received if own else None))
    return Bounds(
        phase=phase.name,
        stages=tuple(stages),
        tokens=attempts.problems * attempts.group_size * attempts.max_new_tokens,
        chips=subject.chips,
    )


def step_stage(
    subject: Subject, phase: PhaseConfig, received: float | None = None
) -> Stage:
    """The optimizer steps of an iteration.

    Args:
      subject: the run.
      phase: one of its own.
      received: bytes from other devices in the compiled step; as many as there must be
        at least without.
    """
    attempts, shape = subject.config.attempts, subject.mesh.shape
    width, lora = attempts.max_new_tokens, subject.config.policy.lora
    always: Mapping[str, int] = held(subject, phase)
    teachers = tuple(
        width + (subject.prompt_width if what == "nothing" else subject.teacher_width)
        for what in sorted(phase.needs.teacher)
    )
    changed = ["policy", "adapters", "moments"]
    if isinstance(phase.held_teacher, EMATeacher):
        changed.append("teacher")
    work = step_work(
        subject.model.config,
        devices=subject.mesh.size,
        tensor=shape["tensor"],
        rows=attempts.batch_size,
        length=subject.prompt_width + width,
        scored=width,
        teachers=teachers,
        microbatches=phase.microbatches,
        held=sum(always.get(name, 0) for name in changed),
        lora=lora,
    )
    if received is None:
        received = exchanged(
            subject.model.config,
            fsdp=shape["fsdp"],
            tensor=shape["tensor"],
            data=shape["data"],
            tokens=attempts.batch_size * (subject.prompt_width + width),
            microbatches=phase.microbatches,
            teachers=len(teachers),
            trained=lora is None,
        )
    return Stage(
        name="optimizer steps",
        chip=subject.chip,
        work=work,
        received=received,
        count=attempts.updates,
    )


def exchanged(
    config: ModelConfig,
    *,
    fsdp: int,
    tensor: int,
    data: int,
    tokens: int,
    microbatches: int,
    teachers: int,
    trained: bool,
) -> float:
    """Bytes that a step must receive on each device, of weights and activations.

    Two for each element. Over fsdp: each layer's weights for the forward pass, for the
    backward one, which `remat` shares, and for each teacher's; and their gradients;
    both once a microbatch. Over data: gradients once more, added up and handed out.
    Over tensor: the residual stream, reduced twice a layer and pass. Heads gather
    nothing, and what else is exchanged is small.
    """
    count = block_weights(config) / tensor
    passes = 2 + teachers
    layers = microbatches * (passes + trained) * 2 * count * (fsdp - 1) / fsdp
    added = 2 * trained * 2 * count / fsdp * (data - 1) / data
    rows = tokens / (fsdp * data) * config.hidden_size * 2
    reduced = 2 * rows * (tensor - 1) / tensor * 2 * config.num_layers
    return layers + added + reduced * passes
