"""Which settings a resumed run may change: those that decided nothing it has done."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fdjax.errors import ConfigError

__all__ = ["ResumeRules", "changes"]


@dataclass(frozen=True, kw_only=True)
class ResumeRules:
    """The phases of a run, and which settings each fixes by beginning."""

    phases: tuple[str, ...]
    """Folders of their checkpoints, in the order in which they are trained."""
    fixed_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Setting, dotted, to the phases that fix it; the longest name counts. A setting
    without a rule is fixed by any phase."""
    grows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Lengths that may grow until one of these phases begins. That is sound where no
    schedule is derived from them."""
    advice: str = ""
    """Which settings may change, for the error message."""

    def check(
        self, before: Mapping[str, Any], now: Mapping[str, Any], begun: Collection[str]
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
            if any(phase in begun for phase in self._fixing(name, old, new))
        ]
        if refused:
            raise ConfigError(
                "Expected the settings that the run began with, got others: "
                f"{'; '.join(refused)}. Resume without these changes, or give another "
                f"--name. {self.advice}Anything may change of a phase that has not "
                f"begun; begun have {', '.join(begun)}."
            )
        return changed

    def deciding(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Dotted name of each setting to its value, without those that decide nothing.

        These may change at any time, as lengths may that only grow.
        """
        return {
            name: value
            for name, value in _flat(settings)
            if name not in self.grows and self._fixing(name, None, None)
        }

    def _fixing(self, name: str, old: Any, new: Any) -> tuple[str, ...]:
        """Phases that fix a setting against this change."""
        grows = isinstance(old, int) and isinstance(new, int) and new > old
        if name in self.grows and grows:
            return self.grows[name]
        parts = name.split(".")
        prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        return next(
            (self.fixed_by[one] for one in prefixes if one in self.fixed_by),
            self.phases,
        )


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


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
