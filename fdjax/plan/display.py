"""A plan on the screen."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fdjax.plan.chips import GIB
from fdjax.plan.collectives import summed
from fdjax.plan.report import Plan
from fdjax.plan.residency import Moment, tightest
from fdjax.plan.search import Found

__all__ = ["in_gib", "print_plan", "print_search", "seconds"]

_LARGEST = 3
_COMING = ("sampler's weights", "sampler's pages", "temporaries")
"""Parts that come and go."""


def print_plan(console: Console, plan: Plan) -> None:
    """Prints all tables, and whether the run fits."""
    subject = plan.subject
    mesh = " × ".join(f"{name} {size}" for name, size in subject.mesh.shape.items())
    console.print(
        f"[bold]{escape(subject.config.policy.source)}[/] on {subject.topology}: "
        f"{subject.chips} chips, {mesh}; {subject.chip.usable_gib:g} GiB usable on each"
        f"{' of two devices a chip' if subject.chip.devices == 2 else ''}",
        highlight=False,
    )
    console.print(_programs(plan))
    console.print(_exchanges(plan))
    console.print(_moments(plan.moments))
    console.print(_bounds(plan))
    for each in plan.bounds:
        console.print(
            f"{escape(each.phase)}: an iteration takes at least "
            f"{seconds(each.seconds)} s, 1,000 of them at least {seconds(each.hours)} "
            f"h; at most {each.tokens_a_second:,.0f} tokens/s/chip",
            highlight=False,
        )
    for note in plan.notes:
        console.print(f"[dim]{escape(note)}[/]", highlight=False)
    tight = tightest(plan.moments)
    if plan.fits:
        console.print(
            f"[bold green]fits[/]: tightest while {tight.name} ({tight.phase}), with "
            f"{in_gib(-tight.excess)} GiB free",
            highlight=False,
        )
        return
    console.print(
        f"[bold red]does not fit[/]: while {tight.name} ({tight.phase}), "
        f"{in_gib(max(tight.excess, 0))} GiB too much",
        highlight=False,
    )
    for line in _advice(plan):
        console.print(line, highlight=False)


def print_search(console: Console, tried: Sequence[Found]) -> None:
    """Prints what was compiled in a search: what was chosen, then the fastest."""
    table = Table("settings", "iteration, s, at least", "tightest, GiB", "")
    for found in sorted(
        tried, key=lambda one: (not one.chosen, not one.fits, one.seconds)
    ):
        table.add_row(
            str(found.candidate),
            seconds(found.seconds),
            f"{in_gib(abs(found.excess))} {'too much' if found.excess > 0 else 'free'}",
            "[bold green]chosen[/]" if found.chosen else _mark(found.fits),
        )
    console.print(table)


def in_gib(size: float) -> str:
    """Bytes in GiB.

    >>> in_gib(3 << 29)
    '1.50'
    """
    return f"{size / GIB:,.2f}"


def seconds(value: float) -> str:
    """A time to three figures.

    >>> seconds(0.01234), seconds(12.34)
    ('0.0123', '12.3')
    """
    return f"{value:.3g}" if value < 1_000 else f"{value:,.0f}"


def _programs(plan: Plan) -> Table:
    usable = plan.subject.chip.usable_bytes
    table = Table(
        "program",
        "arguments",
        "temporaries",
        "peak",
        "",
        title="Programs, GiB a device",
    )
    for each in plan.compiled:
        known = not each.refusal
        table.add_row(
            f"{escape(each.name)} [dim]{each.seconds:.0f} s to compile[/]",
            in_gib(each.arguments) if known else "–",
            in_gib(each.temporaries) if known else "–",
            in_gib(each.peak) if known else f"{in_gib(each.peak)} or more",
            _mark(known and each.peak <= usable),
        )
    return table


def _exchanges(plan: Plan) -> Table:
    table = Table("program", "kind", "GB", "largest", title="Received, a device")
    for each in plan.compiled:
        kinds = summed(each.collectives)
        for kind, size in kinds.items():
            largest = [one for one in each.collectives if one.kind == kind][:_LARGEST]
            shapes = ", ".join(f"{one.shape} × {one.times}" for one in largest)
            table.add_row(
                escape(each.name) if kind == next(iter(kinds)) else "",
                kind,
                f"{size / 1e9:,.3g}",
                escape(shapes),
            )
    return table


def _moments(found: Sequence[Moment]) -> Table:
    """What stays through a phase once, and beside it what each program needs."""
    table = Table("phase", "while", "holds", "GiB", "", title="On a device together")
    for phase in dict.fromkeys(moment.phase for moment in found):
        own = [moment for moment in found if moment.phase == phase]
        stays = {
            name: size for name, size in own[0].parts.items() if name not in _COMING
        }
        total = in_gib(sum(stays.values()))
        table.add_row(escape(phase), "[dim]throughout[/]", _parts(stays), total, "")
        for moment in own:
            beside = {
                name: size for name, size in moment.parts.items() if name in _COMING
            }
            table.add_row(
                "",
                moment.name,
                f"+ {_parts(beside)}" if beside else "",
                in_gib(moment.size),
                _mark(moment.fits),
            )
        table.add_section()
    return table


def _parts(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {in_gib(size)}" for name, size in sizes.items())


def _bounds(plan: Plan) -> Table:
    table = Table(
        *("phase", "stage", "compute s", "memory s", "links s", "binds"),
        title="Bounds: an iteration takes at least",
    )
    for each in plan.bounds:
        for stage in each.stages:
            floor = stage.floor
            table.add_row(
                escape(each.phase) if stage is each.stages[0] else "",
                f"{stage.name} × {stage.count:,}" if stage.count > 1 else stage.name,
                seconds(floor.compute_s),
                seconds(floor.memory_s),
                seconds(floor.links_s),
                floor.binds,
                end_section=stage is each.stages[-1],
            )
    return table


def _advice(plan: Plan) -> Iterator[str]:
    if not plan.advice:
        yield "Nothing that is known here would give room."
        return
    yield "What would give room, GiB a device, the best first:"
    for number, each in enumerate(plan.advice, start=1):
        note = f"; {each.alters}" if each.alters else ""
        enough = ", enough" if each.enough else ""
        yield f" {number}. {escape(each.change)}: {in_gib(each.saves)}{enough}{note}"


def _mark(fits: bool) -> str:
    return "[green]fits[/]" if fits else "[red]does not fit[/]"
