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
    """Content of config.json."""
    metrics: list[dict[str, Any]]
    """Rows of metrics.jsonl."""
    evaluation: dict[str, Any]
    """Content of eval.json."""
    samples: list[dict[str, Any]]
    """Rows of samples.jsonl."""
    probes: list[dict[str, Any]] = field(default_factory=list)
    """Rows of probes.jsonl."""

    @property
    def arms(self) -> list[str]:
        """Arms in the order of the evaluation, then of metrics and samples."""
        evaluated = [row["arm"] for row in self.evaluation.get("arms", [])]
        others = [row["arm"] for row in (*self.metrics, *self.samples)]
        return list(dict.fromkeys(evaluated + others))


def read_run(run_dir: Path) -> RunFiles:
    """Read a run folder.

    Args:
      run_dir: folder with config.json, metrics.jsonl, eval.json, samples.jsonl and
        probes.jsonl, each of which may be missing.

    Raises:
      DataError: there is neither metrics.jsonl nor eval.json, or a file is damaged
        elsewhere than in the last line that a running process writes.
    """
    files = RunFiles(
        name=run_dir.resolve().name,
        config=_object(run_dir / "config.json"),
        metrics=_rows(run_dir / "metrics.jsonl"),
        evaluation=_object(run_dir / "eval.json"),
        samples=_rows(run_dir / "samples.jsonl"),
        probes=_rows(run_dir / "probes.jsonl"),
    )
    if not files.metrics and not files.evaluation:
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
