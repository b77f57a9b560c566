"""The programs of a run, lowered for its devices without any of its arrays."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fdjax.model import LoRA, adapt, pages_sharding, split
from fdjax.plan.subject import Subject
from fdjax.rollout import Batch, TeacherPrompts
from fdjax.run.probe import pass_rows, summed_marginal
from fdjax.sampling.arrays import Sizes, pack_blocks, pack_slots
from fdjax.sampling.programs import decode_program, prefill_program
from fdjax.sampling.weights import copy_shapes, placing_program
from fdjax.sharding import batch_parts, batch_sharding
from fdjax.train import (
    LogprobGap,
    Objective,
    PhaseConfig,
    init_state,
    make_objective,
    make_optimizer,
    state_shardings,
)
from fdjax.train.phases import phase_step
from fdjax.train.state import TrainState, on_base

__all__ = [
    "ADAPTERS",
    "DECODE",
    "EVALUATION",
    "GAP",
    "HAND_OVER",
    "ON_THE_SIDE",
    "PREFILL",
    "Job",
    "jobs",
    "step",
]

DECODE, PREFILL = "decode", "prefill"
HAND_OVER, ADAPTERS = "hand-over", "hand-over of adapters"
GAP = "read again"
EVALUATION = "evaluation"
ON_THE_SIDE = (HAND_OVER, ADAPTERS, PREFILL, DECODE, GAP, EVALUATION)
"""All that is no optimizer step."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A program to compile."""

    name: str
    about: str
    """Who runs it when."""
    phases: tuple[str, ...] = ()
    """Whose step it is."""
    lower: Callable[[], jax.stages.Lowered]


def jobs(subject: Subject) -> Iterator[Job]:
    """All programs that an iteration and an evaluation run on the devices.

    Phases that differ in names and lengths alone share a step. With a server the
    sampler's programs are the server's.
    """
    steps: dict[Any, list[PhaseConfig]] = {}
    for phase in subject.phases:
        same = phase.terms, phase.optimizer, phase.held_teacher, phase.microbatches
        steps.setdefault(same, []).append(phase)
    for phases in steps.values():
        names = tuple(phase.name for phase in phases)
        yield Job(
            name=f"{' and '.join(names)} step",
            about="student and teacher forward, backward, optimizer, teacher's update",
            phases=names,
            lower=partial(step, subject, phases[0]),
        )
    if subject.slotting is not None:
        yield Job(
            name=HAND_OVER,
            about="the policy's weights to the sampler, once an iteration",
            lower=partial(_hand_over, subject, 0),
        )
        if subject.config.policy.lora is not None:
            yield Job(
                name=ADAPTERS,
                about="after the weights that they are on",
                lower=partial(_hand_over, subject, 1),
            )
        yield Job(
            name=PREFILL,
            about="some pages of prompts",
            lower=partial(_prefill, subject),
        )
        yield Job(
            name=DECODE,
            about="a token of each slot, again and again",
            lower=partial(_decode, subject),
        )
    yield Job(
        name=GAP,
        about="the trainer's view of some attempts, each iteration",
        lower=partial(_gap, subject),
    )
    yield Job(
        name=EVALUATION,
        about="the mean distribution behind attempts held out",
        lower=partial(_evaluation, subject),
    )


def step(
    subject: Subject, phase: PhaseConfig, objective: Objective | None = None
) -> jax.stages.Lowered:
    """The train step of a phase, at the full width alone.

    In a run the narrower widths of its microbatches are of the same program. They are
    left out to save time: each has the whole step to compile.

    Args:
      subject: the run.
      phase: one of its own, or a variant.
      objective: another than that of the phase's terms.
    """
    lora = subject.config.policy.lora
    compiled: Any = phase_step(
        replace(phase, widths=1),
        subject.model,
        objective or make_objective(subject.model, phase.terms),
        subject.mesh,
        lora,
    )
    state = _state(subject, phase, lora)
    return compiled.__wrapped__.lower(
        state._replace(base=None), state.base, _batch(subject, phase)
    )


def _hand_over(subject: Subject, part: int) -> jax.stages.Lowered:
    """Of the base, part 0, or of its adapters, part 1."""
    params = split(_policy(subject))[part]
    program: Any = placing_program(subject.sampling_model, params)
    # Both meshes have the same devices in the same order.
    assert program is not None
    return program.lower(params)


def _prefill(subject: Subject) -> jax.stages.Lowered:
    made = subject.slotting
    assert made is not None
    parts = batch_parts(made.mesh)
    blocks, _ = pack_blocks([[]] * parts, made.slots.blocks, _sizes(subject))
    program: Any = prefill_program(subject.sampling_model, made.sampling)
    return program.lower(*_sampled(subject), _everywhere(subject, blocks))


def _decode(subject: Subject) -> jax.stages.Lowered:
    made = subject.slotting
    assert made is not None
    slots, _ = pack_slots([], batch_parts(made.mesh), _sizes(subject))
    program: Any = decode_program(
        subject.sampling_model, made.sampling, made.slots.steps
    )
    rest = _everywhere(subject, (slots, np.int32(0), np.bool_(False)))
    return program.lower(*_sampled(subject), *rest)


def _gap(subject: Subject) -> jax.stages.Lowered:
    gap, attempts = LogprobGap(subject.model), subject.config.attempts
    rows = gap.rows(attempts.problems * attempts.group_size)
    return gap.program.lower(
        _policy(subject),
        *_columns(subject, rows, subject.prompt_width),
        _rows(subject, rows, attempts.max_new_tokens, dtype=jnp.float32),
        temperature=attempts.temperature,
    )


def _evaluation(subject: Subject) -> jax.stages.Lowered:
    informed = any(phase.needs.feedback for phase in subject.phases)
    wide = subject.config.evaluation.teacher and informed
    width = subject.teacher_width if wide else subject.prompt_width
    lowered: Any = summed_marginal
    return lowered.lower(
        subject.model,
        _policy(subject),
        *_columns(subject, pass_rows(subject.model), width),
        temperature=subject.config.attempts.temperature,
    )


# Shapes


def _state(subject: Subject, phase: PhaseConfig, lora: LoRA | None) -> TrainState:
    """A phase's state; its base has the type in which a run holds it."""
    optimizer, teacher = make_optimizer(phase.optimizer), phase.held_teacher
    model, mesh = subject.model, subject.mesh
    layout = state_shardings(model, optimizer, mesh, teacher=teacher, lora=lora)
    state = jax.eval_shape(
        lambda key: init_state(model, optimizer, mesh, key, teacher=teacher, lora=lora),
        jax.random.key(0),
    )
    if lora is not None:
        dtype = jnp.dtype(lora.base_dtype)
        base = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), state.base
        )
        state = state._replace(base=base)
    return jax.tree.map(_placed, state, layout)


def _policy(subject: Subject) -> Any:
    """The policy's parameters, perhaps with adapters, as a phase holds them."""
    state = _state(subject, subject.phases[0], subject.config.policy.lora)
    return on_base(state.base, state.params)


def _sampled(subject: Subject) -> tuple[Any, Any]:
    """The sampler's weights and its pages."""
    made, model = subject.slotting, subject.sampling_model
    assert made is not None
    trees = [
        tree if tree is None else jax.tree.map(_placed, *copy_shapes(model, tree))
        for tree in split(_policy(subject))
    ]
    base, adapters = trees
    count = made.slots.pages(batch_parts(made.mesh))
    pages = jax.eval_shape(lambda: model.init_pages(count, made.slots.page))
    return (
        base if adapters is None else adapt(base, adapters),
        _placed(pages, pages_sharding(made.mesh)),
    )


def _sizes(subject: Subject) -> Sizes:
    made = subject.slotting
    assert made is not None
    return Sizes(
        slots=made.slots.slots // batch_parts(made.mesh),
        page=made.slots.page,
        columns=made.slots.columns,
        words=jax.random.key_data(jax.random.key(0)).size,
    )


def _everywhere(subject: Subject, arrays: Any) -> Any:
    """Shapes of arrays that all devices have."""
    made = subject.slotting
    assert made is not None
    layout = NamedSharding(made.mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: _placed(leaf, layout), arrays)


def _batch(subject: Subject, phase: PhaseConfig) -> Batch:
    """A batch with what the phase's terms read, as `rollout_batch` makes it."""
    needs, attempts = phase.needs, subject.config.attempts
    rows, width = attempts.batch_size, attempts.max_new_tokens

    def rows_of(*shape: int, dtype: Any = jnp.bool_) -> Any:
        return _rows(subject, rows, *shape, dtype=dtype)

    def prompts() -> TeacherPrompts:
        read = subject.teacher_width
        return TeacherPrompts(
            prompts=rows_of(read, dtype=jnp.int32),
            valid=rows_of(read),
            mask=rows_of(width),
        )

    prompt_ids, prompt_valid, responses, response_valid, written = _columns(
        subject, rows, subject.prompt_width
    )
    old = needs.old_logprobs
    return Batch(
        prompts=prompt_ids,
        prompt_valid=prompt_valid,
        responses=responses,
        response_valid=response_valid,
        written=written,
        known=rows_of(),
        passed=rows_of(),
        pass_rate=rows_of(dtype=jnp.float32),
        advantages=rows_of(dtype=jnp.float32) if needs.advantage else None,
        old_logprobs=rows_of(width, dtype=jnp.float32) if old else None,
        version=rows_of(dtype=jnp.int32) if old else None,
        feedback=prompts() if needs.feedback else None,
        wrong_feedback=prompts() if "wrong_feedback" in needs.teacher else None,
        sampling=None if subject.slotting is None else subject.slotting.sampling,
    )


def _columns(subject: Subject, rows: int, prompt: int) -> tuple[Any, ...]:
    """Prompts and responses, what of each is valid, and what was sampled."""
    width = subject.config.attempts.max_new_tokens
    return (
        _rows(subject, rows, prompt, dtype=jnp.int32),
        _rows(subject, rows, prompt),
        _rows(subject, rows, width, dtype=jnp.int32),
        _rows(subject, rows, width),
        _rows(subject, rows, width),
    )


def _rows(subject: Subject, *shape: int, dtype: Any = jnp.bool_) -> Any:
    """An array of rows of a batch."""
    layout = batch_sharding(subject.mesh)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=layout)


def _placed(leaf: Any, layout: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout)
