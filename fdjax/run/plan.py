"""What a run would do, said without doing it: settings, phases, memory, prompts."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fdjax.data.chat import prompt_text
from fdjax.encoding import encode
from fdjax.run.config import RunConfig
from fdjax.run.folder import to_json
from fdjax.run.memory import held_in, memory_note
from fdjax.run.recipe import Recipe
from fdjax.run.task import Arm
from fdjax.train import (
    EMATeacher,
    LiveTeacher,
    OptimizerConfig,
    PhaseConfig,
    SyncedTeacher,
    Teacher,
)

__all__ = ["print_plan"]

_GIB = 1 << 30
_FEEDBACK = "(feedback on the attempt)"
_COLUMNS = ("phase", "iterations", "minimises, by", "computes", "holds, GiB a device")


def print_plan(console: Console, config: RunConfig, recipe: Recipe) -> None:
    """Prints the resolved settings and what would be computed and held.

    Args:
      console: where to.
      config: resolved settings.
      recipe: of the run, which nobody runs; the first of its problems is shown as the
        policy and its teacher read it.
    """
    console.rule("settings")
    text = encode(to_json(config), indent=1).decode()
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.rule("phases")
    model, lora, task = recipe.described.model, config.policy.lora, recipe.task
    table = Table(*_COLUMNS)
    for arm in recipe.arms:
        for phase in arm.phases:
            held = sum(held_in(phase, model, lora).values())
            table.add_row(*map(escape, _row(arm, phase)), f"{held / _GIB:.2f}")
    console.print(table)
    console.print(memory_note(recipe.arms, model, lora, recipe.sampler))
    attempts = config.attempts
    console.print(
        f"An iteration: {attempts.problems} problems × {attempts.group_size} attempts "
        f"of at most {attempts.max_new_tokens} tokens behind prompts of "
        f"{recipe.prompt_width} (teacher: {recipe.teacher_width}); {attempts.updates} "
        f"optimizer step(s) of {attempts.batch_size} attempts. {len(task.problems)} "
        f"problems to train on, {len(task.evaluation)} held out.",
        highlight=False,
    )
    first = task.problems[0]
    for reader, feedback in (("policy", None), ("teacher", _FEEDBACK)):
        console.rule(f"{first.name}, as the {reader} reads it")
        shown = prompt_text(recipe.tokenizer, first, feedback, format=task.asking)
        console.print(shown, markup=False, highlight=False, soft_wrap=True)


def _row(arm: Arm, phase: PhaseConfig) -> Iterator[str]:
    """A phase in words, but for what it holds."""
    yield f"{phase.name}\n{_begins(arm, phase)}"
    yield _length(phase)
    terms, optimizer = map(_term, phase.terms), _optimizer(phase.optimizer)
    yield f"{', '.join(terms)}\n{', '.join(optimizer)}"
    yield ", ".join(_passes(phase))


def _begins(arm: Arm, phase: PhaseConfig) -> str:
    """What a phase takes over."""
    at = arm.phases.index(phase)
    if not at:
        return "from the policy"
    kept = {"moments": phase.keep_moments, "teacher": phase.keep_teacher}
    taken = [arm.phases[at - 1].name, *(name for name in kept if kept[name])]
    return f"from {', '.join(taken)}"


def _length(phase: PhaseConfig) -> str:
    """When a phase hands over."""
    if phase.until is None:
        return str(phase.steps)
    return f"at most {phase.steps}, until {phase.until.metric} stops rising"


def _optimizer(config: OptimizerConfig) -> Iterator[str]:
    yield f"AdamW {config.learning_rate:g}"
    if config.warmup_steps:
        yield f"warm-up {config.warmup_steps}"
    if config.decay_steps is not None:
        yield f"decay to {config.final_fraction:g} of it by {config.decay_steps}"
    if config.weight_decay:
        yield f"weight decay {config.weight_decay:g}"


def _teacher(teacher: Teacher | None) -> str:
    match teacher:
        case EMATeacher(rate=rate):
            return f"EMA {rate:g} teacher"
        case SyncedTeacher(every=every):
            return f"teacher copied every {every} updates"
        case LiveTeacher():
            return "live teacher"
    return "frozen teacher"


def _term(term: Any) -> str:
    if callable(term.weight):
        return f"{term.name} × schedule"
    return term.name if term.weight == 1 else f"{term.weight:g} {term.name}"


def _passes(phase: PhaseConfig) -> Iterator[str]:
    """The passes over a batch that a phase takes."""
    needs = phase.needs
    yield "student"
    for reading in sorted(needs.teacher):
        yield f"{_teacher(phase.held_teacher)} with {reading.replace('_', ' ')}"
    if needs.advantage:
        yield f"advantages ({needs.advantage})"
