"""Reads the files of a run as plain JSON values, finished or not."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fdjax.encoding import decode
from fdjax.errors import DataError
from fdjax.jsonl import whole_rows

__all__ = ["RunFiles", "read_run", "read_runs"]

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run folder holds; parts that are not there yet are empty."""

    name: str
    """Name of the folder."""
    config: dict[str, Any]
    """Content of config.json; of several seeds, the first one's."""
    metrics: Rows
    """Rows of metrics.jsonl."""
    evaluation: dict[str, Any]
    """Content of eval.json."""
    samples: Rows
    """Rows of samples.jsonl."""
    probes: Rows = field(default_factory=list)
    """Rows of probes.jsonl."""
    events: Rows = field(default_factory=list)
    """Rows of events.jsonl: what guards saw and did."""
    claims: Rows = field(default_factory=list)
    """Content of claims.json, else those of eval.json."""
    seeds: tuple["RunFiles", ...] = ()
    """The runs of a folder that holds one for each seed."""

    @property
    def parts(self) -> tuple["RunFiles", ...]:
        """The runs of each seed, or this one."""
        return self.seeds or (self,)

    @property
    def probed(self) -> list[Rows]:
        """Probes of its runs, those that have trained."""
        probes = [one.probes for one in self.parts]
        return [rows for rows in probes if any(row["step"] for row in rows)]

    @property
    def arms(self) -> list[str]:
        """Arms in the order of evaluation or probes, then of the other files."""
        runs = (self, *self.seeds)
        evaluated = [
            row["arm"] for run in runs for row in run.evaluation.get("arms", [])
        ]
        probed = [row["policy"] for rows in self.probed for row in rows]
        others = [
            row["arm"]
            for run in runs
            for row in (*run.metrics, *run.samples, *run.events)
        ]
        return list(dict.fromkeys(evaluated + probed + others))

    @cached_property
    def by_arm(self) -> dict[str, Rows]:
        """Rows of metrics.jsonl of each arm."""
        found: dict[str, Rows] = {}
        for row in self.metrics:
            found.setdefault(row["arm"], []).append(row)
        return found


def read_runs(run_dirs: Sequence[Path]) -> list[RunFiles]:
    """Read several runs, each named by as much of its path as tells it from others.

    Args:
      run_dirs: folders as `read_run` takes them; one that is given twice counts once.

    Raises:
      DataError: as `read_run` does.
    """
    folders = list(dict.fromkeys(folder.resolve() for folder in run_dirs))
    longest = max((len(folder.parts) for folder in folders), default=0)
    names: list[str] = []
    for length in range(1, longest + 1):
        names = ["/".join(folder.parts[-length:]) for folder in folders]
        if len(set(names)) == len(folders):
            break
    return [
        replace(read_run(folder), name=name)
        for folder, name in zip(folders, names, strict=True)
    ]


def read_run(run_dir: Path) -> RunFiles:
    """Read a run folder, or a folder of such that differ in their seed.

    Args:
      run_dir: folder with config.json, metrics.jsonl, eval.json, samples.jsonl,
        probes.jsonl, events.jsonl and claims.json, each of which may be missing; or
        with such folders named `seed<number>`, and claims.json.

    Raises:
      DataError: there is none of the first three and no seed's folder with one, or a
        file is damaged elsewhere than in the last line that a running process writes.
    """
    if not run_dir.is_dir():
        raise DataError(
            f"expected the folder of a run at {run_dir}, got "
            f"{'a file' if run_dir.exists() else 'nothing'}: correct the path"
        )
    seeds = sorted(
        (
            found
            for found in run_dir.glob("seed*")
            if found.name[4:].isdecimal() and _begun(found)
        ),
        key=lambda found: int(found.name[4:]),
    )
    if not seeds and not _begun(run_dir):
        raise DataError(
            f"expected {', '.join(_FIRST)} or folders seed0, seed1 … with them in "
            f"{run_dir}, got none: give the folder of a run that has begun"
        )
    evaluation = _object(run_dir / "eval.json")
    runs = tuple(map(read_run, seeds))
    return RunFiles(
        name=run_dir.resolve().name,
        config=_object(run_dir / "config.json") or (runs[0].config if runs else {}),
        metrics=_rows(run_dir / "metrics.jsonl"),
        evaluation=evaluation,
        samples=_rows(run_dir / "samples.jsonl", *_SAMPLE),
        probes=_rows(run_dir / "probes.jsonl", "policy", "iterations", "reader"),
        events=_rows(run_dir / "events.jsonl", "guard"),
        claims=(_object(run_dir / "claims.json") or evaluation).get("claims", []),
        seeds=runs,
    )


_FIRST = ("config.json", "metrics.jsonl", "eval.json")
"""Files by one of which a run is known."""
_SAMPLE = ("problem", "statement", "proof", "status")


def _begun(run_dir: Path) -> bool:
    return any((run_dir / name).exists() for name in _FIRST)


def _object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = decode(path.read_bytes())
    except ValueError as error:
        raise DataError(
            f"expected JSON in {path}, got text that is not ({error}): restore the file"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"expected a JSON object in {path}, got {type(value).__name__}")
    return value


def _rows(path: Path, *keys: str) -> Rows:
    """Rows with an arm, a step and these keys."""
    if not path.exists():
        return []
    return [row for _, row in whole_rows(path, ("arm", "step", *keys))]
