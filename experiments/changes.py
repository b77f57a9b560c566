"""Which settings a resumed run may change: those that decided nothing it has done."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from fdjax.errors import ConfigError

__all__ = ["PHASES", "changes", "check_changes"]

_ARMS = ("grpo", "fd", "fd_then_grpo", "sft_references")
PHASES = ("sft", *_ARMS)
"""Phases of a comparison, as their checkpoints are called."""

_FIXED_BY: dict[str, tuple[str, ...]] = {
    # Places and resources decide no number; what is measured is measured anew.
    "name": (),
    "runs": (),
    "minif2f": (),
    "lean_workers": (),
    "evaluation": (),
    "warm_start": ("sft",),
    "rollout": _ARMS,
    # SFT's rows have the widths and the hints of the rollouts.
    "rollout.max_new_tokens": PHASES,
    "rollout.feedback_tokens": PHASES,
    "rollout.handover": ("fd", "fd_then_grpo"),
    "grpo": ("grpo", "fd_then_grpo"),
    "fd": ("fd",),
    "fd.plan": PHASES,
    "control": ("sft_references",),
}
"""Settings to the phases that fix them by beginning; the longest name counts.

All others are fixed by any phase: seed, data, model, and Lean's time limit, which
decides verdicts.
"""

_GROWS: dict[str, tuple[str, ...]] = {"rollout.steps": (), "warm_start.steps": _ARMS}
"""Lengths that may grow until one of these phases begins.

That is sound because no schedule is derived from them: `decay_steps` is a setting of
its own.
"""


def check_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], begun: Collection[str]
) -> dict[str, tuple[Any, Any]]:
    """What differs between two configurations, if it may.

    Args:
      before: of the run, as JSON values.
      now: of the command that resumes it.
      begun: phases that have a checkpoint.

    Returns:
      Name of each setting that differs to what it was and is.

    Raises:
      ConfigError: a setting differs that a phase which has begun depends on.
    """
    changed = changes(before, now)
    refused = [
        f"{name} was {old!r}, now {new!r}"
        for name, (old, new) in changed.items()
        if any(phase in begun for phase in _fixing(name, old, new))
    ]
    if refused:
        raise ConfigError(
            "Expected the settings that the run began with, got others: "
            f"{'; '.join(refused)}. Resume without these changes, or give another "
            "--name. Name, runs, lean_workers, minif2f and evaluation may change, "
            "rollout.steps may grow, and so may anything of a phase that has not "
            f"begun; begun have {', '.join(begun)}."
        )
    return changed


def changes(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Dotted name of each value that differs to what it was and is."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return {
        name: (old.get(name), new.get(name))
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    }


def _fixing(name: str, old: Any, new: Any) -> tuple[str, ...]:
    """Phases that fix a setting against this change."""
    grows = isinstance(old, int) and isinstance(new, int) and new > old
    if name in _GROWS and grows:
        return _GROWS[name]
    parts = name.split(".")
    prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((_FIXED_BY[one] for one in prefixes if one in _FIXED_BY), PHASES)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
