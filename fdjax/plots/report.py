"""The report of a run, and the comparison of several, as one HTML file each."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fdjax.files import write_whole
from fdjax.plots.answers import answers, favourites
from fdjax.plots.differences import differences
from fdjax.plots.held_out import held_out_tables
from fdjax.plots.lines import legend, lines_of
from fdjax.plots.page import render
from fdjax.plots.run_files import RunFiles, read_run, read_runs
from fdjax.plots.summary import summary
from fdjax.plots.tables import claim_rows, headline, provenance, settings

__all__ = ["write_comparison", "write_report"]


def write_report(run_dir: Path, path: Path | None = None) -> Path:
    """Write the report of a run, or of several seeds of one.

    The page holds its figures, styles, script and data, and loads nothing. Sections
    whose file is missing are left out.

    Args:
      run_dir: folder as `read_run` takes it.
      path: of the page; `report.html` in the folder by default.

    Returns:
      Path of the page.

    Raises:
      DataError: the folder holds no run, or a file in it is damaged.
    """
    return _write(_report(read_run(run_dir)), path or run_dir / "report.html")


def write_comparison(run_dirs: Sequence[Path], path: Path) -> Path:
    """Write a page that compares runs; a folder of seeds counts as one of them.

    Args:
      run_dirs: folders as `read_run` takes them; at least one.
      path: of the page.

    Returns:
      Path of the page.

    Raises:
      DataError: as `write_report` does.
    """
    return _write(_comparison(read_runs(run_dirs)), path)


def _write(page: str, path: Path) -> Path:
    # A lone surrogate, which a model's text may hold, is no UTF-8.
    write_whole(path, page.encode(errors="replace"))
    return path


def _report(files: RunFiles) -> str:
    evaluation, probed = files.evaluation, files.probed
    liked = favourites(probed)
    return render(
        "report.html.j2",
        lines_of([files]),
        name=files.name,
        last_row=_last_time([files]),
        headline=headline(evaluation) if evaluation.get("arms") else None,
        claims=claim_rows(files.claims),
        seeds=[one.name for one in files.seeds],
        held_out=held_out_tables(probed) if probed else [],
        favourites=liked,
        most=max((each.tokens[0][1] for each in liked if each.tokens), default=1.0),
        answers=answers(probed),
        teacher=evaluation.get("teacher"),
        about=evaluation.get("about") or {},
        provenance=provenance(files.config),
        settings=settings(files.config.get("config", files.config)),
    )


def _comparison(runs: Sequence[RunFiles]) -> str:
    lines = lines_of(runs)
    configured, versions = differences(runs)
    return render(
        "comparison.html.j2",
        lines,
        name=", ".join(run.name for run in runs),
        last_row=_last_time(runs),
        runs=runs,
        legend=legend(lines),
        summary=summary(lines),
        configured=configured,
        versions=versions,
    )


def _last_time(runs: Sequence[RunFiles]) -> str | None:
    """When the last row of metrics was written."""
    times = [
        row["time"]
        for run in runs
        for part in run.parts
        for row in part.metrics
        if row.get("time") is not None
    ]
    if not times:
        return None
    return datetime.fromtimestamp(max(times), UTC).strftime("%Y-%m-%d %H:%M UTC")
