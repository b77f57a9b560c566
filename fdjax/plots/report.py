"""The report of a run as one HTML file that needs nothing else, network included."""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from fdjax.files import write_whole
from fdjax.plots.answers import answers, favourites
from fdjax.plots.browser import browser_data, script_json
from fdjax.plots.curves import run_figures
from fdjax.plots.drawing import INK, figure_svg
from fdjax.plots.held_out import held_out_tables
from fdjax.plots.run_files import RunFiles, read_run
from fdjax.plots.style import ArmStyle, arm_styles
from fdjax.plots.tables import (
    claim_rows,
    headline,
    last_metrics,
    provenance,
    settings,
    stage_times,
    status_counts,
)
from fdjax.records import Status

__all__ = ["write_report"]

_CAPTIONS = {
    "pass_at_k": "Chance that k attempts hold a verified proof, mean over theorems; "
    "bands are 95 % bootstrap intervals over theorems.",
    "entropy": "Entropy of the policy at the temperature of sampling, mean over all "
    "tokens that it sampled in the iteration (rollout/entropy). Arms that sample "
    "nothing, such as SFT, have no line.",
    "reward": "Mean reward of the attempts sampled in an iteration.",
    "held_out": "On problems held out, from the pretrained policy on: reward; entropy "
    "of the policy over the tokens that it sampled; and marginal entropy, that of the "
    "next-token distribution averaged over all sampled positions, which falls first "
    "where a policy collapses onto few phrases. Bands: lowest to highest seed.",
}


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into the folder of a run, or of several seeds of one.

    The page holds its figures, styles, script and data. Text of the run is escaped and
    never becomes markup, and a content security policy lets the page run its own
    script only and load nothing.

    Args:
      run_dir: folder as `read_run` takes it; sections whose file is missing are left
        out.

    Returns:
      Path of the report.

    Raises:
      DataError: the folder holds no run, or a file in it is damaged.
    """
    page = _render(read_run(run_dir))
    path = run_dir / "report.html"
    write_whole(path, page.encode())
    return path


def _render(files: RunFiles) -> str:
    """The page as text."""
    styles = arm_styles(files.arms)
    evaluation = files.evaluation
    sources = resources.files("fdjax.plots")
    script = sources.joinpath("report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "arms": _arm_marker(styles),
        "cell": _cell,
        "number": _number,
        "signed": _signed,
        "seconds": _seconds,
        "visible": _visible,
    }
    template = environment.from_string(
        sources.joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    browser = browser_data(files.samples)
    browser["arms"] = {
        arm: {"label": style.label, "place": place}
        for place, (arm, style) in enumerate(styles.items())
    }
    browser["statuses"] = statuses = [status.value for status in Status]
    liked = favourites(files.probed)
    return template.render(
        name=files.name,
        finished=_last_time(files),
        styles=list(styles.values()),
        css=Markup(sources.joinpath("report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=digest,
        data=Markup(script_json(browser)),
        samples=len(files.samples),
        headline=headline(evaluation) if evaluation.get("arms") else None,
        claims=claim_rows(files.claims),
        seeds=[one.name for one in files.seeds],
        held_out=held_out_tables(files.probed) if files.probed else [],
        favourites=liked,
        most=max((each.tokens[0][1] for each in liked if each.tokens), default=1.0),
        answers=answers(files.probed),
        teacher=evaluation.get("teacher"),
        about=evaluation.get("about") or {},
        figures=[
            {
                "name": name,
                "svg": Markup(_page_svg(figure_svg(figure), styles, name)),
                "caption": _CAPTIONS[name],
            }
            for name, figure in run_figures(files).items()
        ],
        statuses=statuses,
        status_rows=status_counts(files),
        times=stage_times(files.metrics),
        metrics=last_metrics(files),
        provenance=provenance(files.config),
        settings=settings(files.config.get("config", files.config)),
    )


def _page_svg(svg: str, styles: Mapping[str, ArmStyle], name: str) -> str:
    """The drawing for use inside the page: its colours follow the page's theme."""
    svg = svg[svg.index("<svg") :].replace("<svg", '<svg role="img"', 1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Matplotlib's style rule would reach beyond its drawing.
    svg = svg.replace("*{stroke", "figure svg *{stroke")
    svg = svg.replace(INK, "currentColor").replace("#ffffff", "var(--panel)")
    for place, style in enumerate(styles.values()):
        svg = svg.replace(style.colour, f"var(--arm-{place})")
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    # Names inside one page must differ between drawings.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    return re.sub(r'(url\(#|href="#)', rf"\1{name}-", svg)


def _arm_marker(styles: Mapping[str, ArmStyle]) -> Callable[[str], Markup]:
    """A filter that shows arm names inside a text by their label and colour."""
    places = {arm: place for place, arm in enumerate(styles)}
    longest_first = sorted(places, key=len, reverse=True)
    names = re.compile(
        r"(?<!\w)(" + "|".join(map(re.escape, longest_first)) + r")(?!\w)"
    )

    def mark(text: str) -> Markup:
        if not places:
            return escape(text)
        parts = names.split(text)
        return Markup("").join(
            Markup('<b class="arm arm-{}">{}</b>').format(
                places[part], styles[part].label
            )
            if index % 2
            else escape(part)
            for index, part in enumerate(parts)
        )

    return mark


def _cell(value: float | None, kind: str) -> str:
    """A number of the headline table; shares in percent."""
    if value is None:
        return "–"
    if kind == "share":
        return f"{100.0 * value:.1f}"
    return f"{value:.3f}" if kind == "nats" else f"{value:.2f}"


def _number(value: float | int | None) -> str:
    """A number to four figures."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _signed(value: float | None) -> str:
    """A difference with its sign."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def _seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    if value < 90.0:
        return f"{value:.1f} s"
    return f"{value / 60.0:.1f} min" if value < 5400.0 else f"{value / 3600.0:.1f} h"


def _visible(token: str) -> str:
    """A token whose blanks and line feeds can be seen."""
    return token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def _last_time(files: RunFiles) -> str | None:
    """When the last row of metrics was written."""
    times = [row["time"] for row in files.metrics if row.get("time") is not None]
    if not times:
        return None
    return datetime.fromtimestamp(max(times), UTC).strftime("%Y-%m-%d %H:%M UTC")
