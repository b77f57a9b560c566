"""What a run would do, said without doing it: settings, phases, memory, prompts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers import PreTrainedTokenizerFast

from fdjax.data.chat import prompt_text
from fdjax.encoding import encode
from fdjax.model import LoRA, Model
from fdjax.run.config import RunConfig
from fdjax.run.folder import to_json
from fdjax.run.memory import held_bytes, sampler_bytes
from fdjax.run.sampler import RunSampler
from fdjax.run.task import Arm, Task, phases_of
from fdjax.train import PhaseConfig, make_optimizer

__all__ = ["held_in", "memory_note", "print_plan"]

_GIB = 1 << 30
_FEEDBACK = "(feedback on the attempt)"


def print_plan(
    console: Console,
    config: RunConfig,
    task: Task,
    arms: Sequence[Arm],
    model: Model,
    tokenizer: PreTrainedTokenizerFast,
    prompt_width: int,
    sampler: RunSampler,
) -> None:
    """Prints the resolved settings and what would be computed and held.

    Args:
      console: where to.
      config: resolved settings.
      task: problems, whose first is shown as the policy and its teacher read it.
      arms: what would be trained.
      model: the policy, without its weights.
      tokenizer: its own.
      prompt_width: tokens of the student's prompts.
      sampler: of the run; nothing was published.
    """
    console.rule("settings")
    text = encode(to_json(config), indent=1).decode()
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.rule("phases")
    table = Table("phase", "iterations", "minimises", "computes", "holds, GiB a device")
    for arm in arms:
        for phase in arm.phases:
            held = held_in(phase, model, config.policy.lora)
            table.add_row(
                phase.name,
                f"at most {phase.steps}" if phase.until else str(phase.steps),
                escape(", ".join(map(_term, phase.terms))),
                ", ".join(_passes(phase)),
                f"{sum(held.values()) / _GIB:.2f}",
            )
    console.print(table)
    console.print(memory_note(arms, model, config.policy.lora, sampler))
    attempts = config.attempts
    console.print(
        f"An iteration: {attempts.problems} problems × {attempts.group_size} attempts "
        f"of at most {attempts.max_new_tokens} tokens behind prompts of {prompt_width} "
        f"(teacher: {prompt_width + attempts.feedback_tokens}); {attempts.updates} "
        f"optimizer step(s) of {attempts.batch_size} attempts. {len(task.problems)} "
        f"problems to train on, {len(task.evaluation)} held out.",
        highlight=False,
    )
    first = task.problems[0]
    for reader, feedback in (("policy", None), ("teacher", _FEEDBACK)):
        console.rule(f"{first.name}, as the {reader} reads it")
        shown = prompt_text(tokenizer, first, feedback, format=task.asking)
        console.print(shown, markup=False, highlight=False, soft_wrap=True)


def held_in(
    phase: PhaseConfig, model: Model, lora: LoRA | None = None
) -> dict[str, int]:
    """Bytes on the fullest device that stay from step to step, by name.

    The pretrained policy stays beside the one that is trained; adapters share it.
    """
    assert model.mesh is not None  # a run has one
    held = held_bytes(
        model,
        make_optimizer(phase.optimizer),
        model.mesh,
        teacher=phase.held_teacher,
        lora=lora,
    )
    return dict(held) if lora else {"pretrained": held["policy"], **held}


def memory_note(
    arms: Sequence[Arm],
    model: Model,
    lora: LoRA | None,
    sampler: RunSampler,
) -> str:
    """What is on each device of a run, and when; of the phase that holds most."""
    held = max(
        (held_in(phase, model, lora) for phase in phases_of(arms)),
        key=lambda parts: sum(parts.values()),
    )
    sampling = sampler_bytes(sampler, model, lora)
    always = sum(held.values())
    note = (
        f"To be held on each device, GiB: {_parts(held)}; together "
        f"{always / _GIB:.2f}. In a step gradients and activations come on top"
    )
    if not sampling:
        return f"{note}; the sampler's memory is the server's."
    return (
        f"{note}, while sampling the sampler's {_parts(sampling)} instead: "
        f"{(always + sum(sampling.values())) / _GIB:.2f}."
    )


def _parts(held: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size / _GIB:.2f}" for name, size in held.items())


def _term(term: Any) -> str:
    if callable(term.weight):
        return f"{term.name} × schedule"
    return term.name if term.weight == 1 else f"{term.weight:g} {term.name}"


def _passes(phase: PhaseConfig) -> Iterator[str]:
    """The passes over a batch that a phase takes."""
    needs = phase.needs
    yield "student"
    for reading in sorted(needs.teacher):
        yield f"teacher with {reading.replace('_', ' ')}"
    if needs.advantage:
        yield f"advantages ({needs.advantage})"
