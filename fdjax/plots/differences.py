"""What differs between runs: settings and versions."""

from collections.abc import Mapping, Sequence

from fdjax.plots.run_files import RunFiles
from fdjax.plots.tables import provenance, settings

__all__ = ["differences"]

Differences = list[tuple[str, list[str | None]]]
"""Name, and the value in each run; None where a run has none."""


def differences(runs: Sequence[RunFiles]) -> tuple[Differences, Differences]:
    """Settings that differ, and versions that do, in the order of the runs.

    Where a run lies is no difference. Of several seeds the first one's settings count,
    with all seeds.

    Args:
      runs: at least one.
    """
    return (
        _differing([_settings(run) for run in runs]),
        _differing([provenance(run.config) for run in runs]),
    )


_ELSEWHERE = frozenset({"name", "runs", "seeds"})


def _settings(run: RunFiles) -> dict[str, str]:
    found = dict(settings(run.config.get("config", run.config)))
    found = {name: value for name, value in found.items() if name not in _ELSEWHERE}
    if run.seeds:
        found["seed"] = ", ".join(part.name.removeprefix("seed") for part in run.seeds)
    return found


def _differing(columns: Sequence[Mapping[str, str]]) -> Differences:
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [(name, [column.get(name) for column in columns]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]
