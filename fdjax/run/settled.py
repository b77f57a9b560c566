"""What the settings of a run come to: written down, and held against a resumed run.

A command's flags do not say all: code makes arms, judge, writer and prompts of them,
and somebody may have changed it since the run began.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.markup import escape

from fdjax.data.pipeline import fingerprint
from fdjax.encoding import decode, encode
from fdjax.files import write_whole
from fdjax.objects import Place
from fdjax.run.changes import ResumeRules
from fdjax.run.context import RunContext
from fdjax.run.describe import described
from fdjax.run.folder import begun_phases, read_config
from fdjax.run.task import Arm, Task
from fdjax.sharding import on_first
from fdjax.train import PhaseConfig

__all__ = ["settle", "settled_facts"]

_PLACE = "settled"
"""Of these facts in config.json."""
_FREE = ("recording", "replay", "max_missing_share", "window")
"""Settings of a writer (`PolicyFeedback`) that decide no word of it."""


def settled_facts(arms: Sequence[Arm], task: Task) -> dict[str, Any]:
    """What arms and task are, as JSON values without secrets (`described`).

    Args:
      arms: all of the experiment's, whichever are trained now.
      task: as the experiment made it.

    Returns:
      By name: phases, each by its name with its arm and the phase before it; judge,
      writer, format, calls and tools.
    """
    facts = {
        "phases": {
            phase.name: _phase(arm, before, phase)
            for arm in arms
            for before, phase in zip((None, *arm.phases), arm.phases, strict=False)
        },
        "judge": described(task.judge),
        "writer": described(task.writer),
        "format": described(task.asking),
        "calls": task.calls and type(task.calls).__qualname__,
        "tools": described(task.tools),
    }
    # As they are read again.
    return decode(encode(facts))


def settle(context: RunContext[Any], facts: Mapping[str, Any]) -> RunContext[Any]:
    """The run that these facts belong to; its journal has no rows of others.

    Args:
      context: of a run that is open.
      facts: as `settled_facts` gives them.

    Raises:
      ConfigError: a run that is resumed began with other facts, on which a phase that
        has begun depends.
    """
    folder, home = context.folder, context.home
    for note in on_first(lambda: _written(folder, home, facts)):
        context.display.say(f"[yellow]Since the run began:[/] {escape(note)}")
    # Whoever finds checkpoints must find what they are of.
    context.mirror.keep(must=True)
    decided = fingerprint([_rules(facts).deciding(facts)])
    return replace(context, journal=context.journal.narrowed(decided))


def _written(folder: Path, home: Place, facts: Mapping[str, Any]) -> list[str]:
    """Compares facts with those in config.json and puts them there; the differences."""
    path = folder / "config.json"
    content = read_config(path)
    before, changed = content.get(_PLACE), {}
    # Earlier versions, and processes that were killed early, say nothing.
    if before is not None:
        rules = _rules(before, facts)
        changed = rules.check(before, facts, begun_phases(home, rules))
    if changed:
        content["resumed"][-1]["changed"] |= changed
    write_whole(path, encode({**content, _PLACE: facts}, indent=1))
    return [f"{name} was {was}, now {now}" for name, (was, now) in changed.items()]


def _phase(arm: Arm, before: PhaseConfig | None, phase: PhaseConfig) -> dict[str, Any]:
    """A phase without what it does not read, and what decides none of its numbers."""
    found = described(phase)
    for name in ("type", "name", "max_idle"):
        del found[name]
    return {
        "arm": arm.name,
        "after": before and before.name,
        **found,
        "terms": {term.name: described(term) for term in phase.terms},
        "teacher": described(phase.held_teacher),
    }


def _rules(*facts: Mapping[str, Any]) -> ResumeRules:
    """All of a phase is fixed once it begins, its length once the next one does."""
    phases = {name: found for each in facts for name, found in each["phases"].items()}

    def after(name: str) -> Iterator[str]:
        return (other for other, found in phases.items() if found["after"] == name)

    return ResumeRules(
        phases=tuple(phases),
        fixed_by={f"phases.{name}": (name,) for name in phases}
        | {f"writer.{name}": () for name in _FREE},
        grows={f"phases.{name}.steps": tuple(after(name)) for name in phases},
        advice="Steps of a phase may grow until the next one begins. ",
    )
