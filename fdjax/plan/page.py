"""A plan as one HTML file that needs nothing else, in the style of the report."""

from collections.abc import Sequence
from dataclasses import dataclass

from fdjax.plan.chips import GIB
from fdjax.plan.collectives import summed
from fdjax.plan.display import in_gib, seconds
from fdjax.plan.report import Plan
from fdjax.plan.residency import Moment
from fdjax.plots.page import render_page

__all__ = ["plan_page"]

_ORDER = (
    *("pretrained", "policy", "base", "adapters", "moments", "teacher"),
    *("sampler's weights", "sampler's pages", "temporaries"),
)
"""Of the parts of a bar; each has a colour of its own."""
_COLOURS = {
    "pretrained": 0,
    "base": 0,
    "policy": 2,
    "adapters": 2,
    "moments": 3,
    "teacher": 4,
    "sampler's weights": 6,
    "sampler's pages": 5,
    "temporaries": 1,
}
"""Place in the report's palette."""


@dataclass(frozen=True, kw_only=True)
class _Part:
    name: str
    colour: int
    width: float
    """Share of the bar, percent."""
    size: int


@dataclass(frozen=True, kw_only=True)
class _Bar:
    moment: Moment
    parts: Sequence[_Part]


def plan_page(plan: Plan) -> str:
    """The page as text.

    Args:
      plan: of a run.
    """
    usable = plan.subject.chip.usable_bytes
    scale = max([usable, *(moment.size for moment in plan.moments)]) * 1.02
    names = {name for moment in plan.moments for name in moment.parts}
    return render_page(
        "plan.html.j2",
        {
            "gib": in_gib,
            "time": seconds,
            "gigabytes": lambda size: f"{size / 1e9:,.3g}",
            "summed": summed,
        },
        package="fdjax.plan",
        name=f"{plan.subject.config.policy.source} on {plan.subject.topology}",
        browser={"total": 0},
        plan=plan,
        subject=plan.subject,
        usable=usable / GIB,
        limit=100 * usable / scale,
        bars=[_bar(moment, scale) for moment in plan.moments],
        legend=[(name, _COLOURS[name]) for name in _ORDER if name in names],
    )


def _bar(moment: Moment, scale: float) -> _Bar:
    ordered = sorted(moment.parts.items(), key=lambda part: _ORDER.index(part[0]))
    return _Bar(
        moment=moment,
        parts=[
            _Part(name=name, colour=_COLOURS[name], width=100 * size / scale, size=size)
            for name, size in ordered
        ],
    )
