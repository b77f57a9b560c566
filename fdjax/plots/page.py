"""A page as one HTML file that needs nothing else, network included."""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

from fdjax.plots.browser import browse
from fdjax.plots.curves import CAPTIONS, run_figures
from fdjax.plots.drawing import INK, figure_svg
from fdjax.plots.gap import Cell, token_gaps
from fdjax.plots.lines import Line
from fdjax.plots.style import COLOURS, STATUS_COLOURS, ArmStyle
from fdjax.plots.training_tables import (
    guard_events,
    last_metrics,
    stage_times,
    status_counts,
)
from fdjax.records import Status

__all__ = ["render", "render_page"]

_PIXELS_A_POINT = 1.4
_WIDE = 6.0
"""Inches from which on a figure has the whole width of the page."""
_PANELS = 8.0
"""Inches from which on a figure is not squeezed into a narrow page, but moved in it."""


def render(template: str, lines: Sequence[Line], **content: Any) -> str:
    """The page as text.

    Text of a run is escaped and never becomes markup, and a content security policy
    lets the page run its own script only and load nothing.

    Args:
      template: name of its file.
      lines: what it shows.
      content: what else the template reads, beside the sections of every page.
    """
    marker = _arm_marker({line.arm: line.style for line in lines})
    return render_page(
        template,
        {"arms": marker},
        browser=browse(lines),
        figures=[
            {
                "name": name,
                "wide": figure.get_figwidth() > _WIDE,
                "panels": figure.get_figwidth() > _PANELS,
                "svg": Markup(_page_svg(figure_svg(figure), name)),
                "caption": CAPTIONS[name],
            }
            for name, figure in run_figures(lines).items()
        ],
        gaps=token_gaps(lines),
        lines=lines,
        statuses=[status.value for status in Status],
        status_rows=status_counts(lines),
        times=stage_times(lines),
        guards=guard_events(lines),
        metrics=last_metrics(lines),
        **content,
    )


def render_page(
    template: str,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    *,
    package: str = "fdjax.plots",
    **content: Any,
) -> str:
    """A page in the report's style, by a template that extends `base.html.j2`.

    Args:
      template: name of its file.
      filters: of the template, beside those of every page.
      package: that holds it.
      content: what it reads.
    """

    def source(name: str) -> str:
        own = resources.files(package).joinpath(name)
        return own.read_text(encoding="utf-8") if own.is_file() else _source(name)

    script = _source("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "cell": _cell,
        "number": _number,
        "signed": _signed,
        "seconds": _seconds,
        "visible": _visible,
        "heat": _heat,
        "any": _any,
        **(filters or {}),
    }
    return environment.get_template(template).render(
        css=Markup(_source("report.css")),
        colours=COLOURS,
        script=Markup(script),
        script_hash=digest,
        **content,
    )


def _source(name: str) -> str:
    return resources.files("fdjax.plots").joinpath(name).read_text(encoding="utf-8")


def _page_svg(svg: str, name: str) -> str:
    """The drawing for use inside the page: its colours follow the page's theme."""
    svg = svg[svg.index("<svg") :].replace("<svg", '<svg role="img"', 1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Matplotlib's style rule would reach beyond its drawing.
    svg = svg.replace("*{stroke", "figure svg *{stroke")
    svg = svg.replace(INK, "currentColor").replace("#ffffff", "var(--panel)")
    for place, (colour, _) in enumerate(COLOURS):
        svg = svg.replace(colour, f"var(--arm-{place})")
    for status, colour in STATUS_COLOURS.items():
        svg = svg.replace(colour, f"var(--{status})")
    # All drawings have the same size of text, as long as the page is wide enough.
    svg = re.sub(r'(<svg\b[^>]*?) width="([\d.]+)pt"', _limited, svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    # Names inside one page must differ between drawings.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    return re.sub(r'(url\(#|href="#)', rf"\1{name}-", svg)


def _limited(match: re.Match[str]) -> str:
    width = _PIXELS_A_POINT * float(match[2])
    return f'{match[1]} style="max-width:{width:.0f}px"'


def _arm_marker(styles: Mapping[str, ArmStyle]) -> Callable[[str], Markup]:
    """A filter that shows arm names inside a text by their label and colour."""
    longest_first = sorted(styles, key=len, reverse=True)
    names = re.compile(
        r"(?<!\w)(" + "|".join(map(re.escape, longest_first)) + r")(?!\w)"
    )

    def mark(text: str) -> Markup:
        if not styles:
            return escape(text)
        parts = names.split(text)
        return Markup("").join(
            Markup('<b class="arm arm-{}">{}</b>').format(
                styles[part].place, styles[part].label
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


def _any(value: object) -> str:
    """A number, or whatever else a guard noted."""
    return _number(value) if isinstance(value, int | float | None) else str(value)


def _signed(value: float | None) -> str:
    """A difference with its sign."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def _seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    if value < 90.0:
        return f"{value:.3g} s" if value < 10.0 else f"{value:.1f} s"
    return f"{value / 60.0:.1f} min" if value < 5400.0 else f"{value / 3600.0:.1f} h"


def _visible(token: str) -> str:
    """A token whose blanks and line feeds can be seen."""
    shown = token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")
    return shown or "⟨end⟩"


def _heat(cell: Cell, scale: float) -> str:
    """Opacity of a cell's colour; the root makes small values visible."""
    return f"{0.62 * min(max(cell.mean, 0.0) / scale, 1.0) ** 0.5:.3f}"
