"""Reads the files of a run as plain JSON values, finished or not."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fdjax.encoding import decode
from fdjax.errors import DataError
from fdjax.jsonl import whole_rows

__all__ = ["RunFiles", "read_run"]


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run folder holds; parts that are not there yet are empty."""

    name: str
    """Name of the folder."""
    config: dict[str, Any]
    """Content of config.json; of several seeds, the first one's."""
    metrics: list[dict[str, Any]]
    """Rows of metrics.jsonl."""
    evaluation: dict[str, Any]
    """Content of eval.json."""
    samples: list[dict[str, Any]]
    """Rows of samples.jsonl."""
    probes: list[dict[str, Any]] = field(default_factory=list)
    """Rows of probes.jsonl."""
    claims: list[dict[str, Any]] = field(default_factory=list)
    """Content of claims.json, else those of eval.json."""
    seeds: tuple["RunFiles", ...] = ()
    """The runs of a folder that holds one for each seed."""

    @property
    def probed(self) -> list[list[dict[str, Any]]]:
        """Probes of its runs, those that have trained."""
        probes = [one.probes for one in self.seeds or (self,)]
        return [rows for rows in probes if any(row["step"] for row in rows)]

    @property
    def arms(self) -> list[str]:
        """Arms in the order of evaluation or probes, then of metrics and samples."""
        evaluated = [row["arm"] for row in self.evaluation.get("arms", [])]
        probed = [row["policy"] for rows in self.probed for row in rows]
        others = [row["arm"] for row in (*self.metrics, *self.samples)]
        return list(dict.fromkeys(evaluated + probed + others))


def read_run(run_dir: Path) -> RunFiles:
    """Read a run folder, or a folder of such that differ in their seed.

    Args:
      run_dir: folder with config.json, metrics.jsonl, eval.json, samples.jsonl,
        probes.jsonl and claims.json, each of which may be missing; or with such
        folders named `seed<number>`, and claims.json.

    Raises:
      DataError: there is neither metrics.jsonl nor eval.json nor a seed's folder, or a
        file is damaged elsewhere than in the last line that a running process writes.
    """
    seeds = sorted(
        (found for found in run_dir.glob("seed*") if found.name[4:].isdecimal()),
        key=lambda found: int(found.name[4:]),
    )
    evaluation = _object(run_dir / "eval.json")
    runs = tuple(map(read_run, seeds))
    files = RunFiles(
        name=run_dir.resolve().name,
        config=_object(run_dir / "config.json") or (runs[0].config if runs else {}),
        metrics=_rows(run_dir / "metrics.jsonl"),
        evaluation=evaluation,
        samples=_rows(run_dir / "samples.jsonl"),
        probes=_rows(run_dir / "probes.jsonl"),
        claims=(_object(run_dir / "claims.json") or evaluation).get("claims", []),
        seeds=runs,
    )
    if not files.metrics and not files.evaluation and not files.seeds:
        raise DataError(
            f"expected metrics.jsonl or eval.json in {run_dir}, got neither: give the "
            "folder of a run that has begun"
        )
    return files


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


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [row for _, row in whole_rows(path, ("arm", "step"))]
