"""The report of a run as one HTML file that needs nothing else."""

from pathlib import Path

__all__ = ["write_report"]


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run folder and return its path."""
    raise NotImplementedError
