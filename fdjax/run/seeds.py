"""One experiment with several seeds: a run for each, and what they say together."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar, cast

import numpy as np
from jaxtyping import Float64

from fdjax.encoding import encode
from fdjax.errors import DataError
from fdjax.eval import Claim
from fdjax.files import write_whole
from fdjax.objects import Place, there
from fdjax.plots import read_run, write_figures, write_report
from fdjax.plots.held_out import held_out_tables, last_probes
from fdjax.run.changes import changes
from fdjax.run.console import Display, linked
from fdjax.run.folder import Resume
from fdjax.sharding import on_first

__all__ = ["SeedProbes", "each_seed", "write_seeds"]


class SeedSettings(Protocol):
    """What the settings of a run with several seeds have; a dataclass."""

    @property
    def name(self) -> str:
        """Folder of the runs below `runs`."""
        ...

    @property
    def runs(self) -> Place:
        """Where runs are kept."""
        ...

    @property
    def resume(self) -> Resume:
        """Whether to continue those that have begun."""
        ...

    @property
    def seeds(self) -> tuple[int, ...]:
        """A run for each."""
        ...


_MAY_DIFFER = {
    *("seed", "name", "runs", "only"),
    *("mesh.data", "mesh.fsdp", "mesh.tensor"),
}

Config = TypeVar("Config", bound=SeedSettings)


def each_seed(
    config: Config, display: Display, run: Callable[[Config, Display], object]
) -> Place:
    """Runs an experiment once for each seed, one after the other.

    The run of seed 1 is in the folder `seed1` of the experiment's, and a run like any
    other: `--runs runs/french --name seed1 --seed 1 --resume` goes on with it alone.

    Args:
      config: settings with seeds.
      display: what a person sees.
      run: the experiment with settings of one seed.

    Returns:
      The experiment's folder, or its address.
    """
    folder = config.runs / config.name
    for seed in config.seeds:
        begun = on_first(partial(there, folder / f"seed{seed}" / "config.json"))
        alone: dict[str, Any] = {
            "name": f"seed{seed}",
            "runs": folder,
            "seed": seed,
            "seeds": (),
            "resume": config.resume if begun else "no",
        }
        display.say(f"[bold]Seed {seed}[/]")
        run(replace(cast(Any, config), **alone), display)
    return folder


@dataclass(frozen=True, kw_only=True)
class SeedProbes:
    """Probes of S runs that differ in their seed only."""

    runs: tuple[Sequence[dict[str, Any]], ...]
    """Rows of each run's probes.jsonl."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Of all runs `seed<number>` in a folder.

        Raises:
          DataError: there is none, or they differ in more than their seed.
        """
        first, *others = found = read_run(folder).seeds
        for other in others:
            if more := _differing(first.config, other.config):
                raise DataError(
                    f"expected runs in {folder} that differ in their seed only, got "
                    f"other {', '.join(sorted(more))} in {other.name} than in "
                    f"{first.name}: give the new seeds another --name"
                )
        return cls(runs=tuple(one.probes for one in found))

    @property
    def policies(self) -> set[str]:
        """The arms of the first run, and "base"."""
        return {row["policy"] for row in self.runs[0]}

    def of_problems(
        self,
        key: Literal["rewards", "entropies"],
        policy: str,
        reader: str = "student",
    ) -> Float64[np.ndarray, "S N"]:
        """A measurement at the policy's end, by problem; NaN where it is not known.

        Args:
          key: mean reward, or policy entropy in nats a token.
          policy: an arm, or "base", the policy before any.
          reader: student, or teacher: the one who has read feedback.

        Raises:
          DataError: a run has no such probe, or runs were measured on other problems.
        """
        problems = list(dict.fromkeys(self.runs[0][0]["problems"]))
        rows = last_probes(self.runs, policy, reader)
        if len(rows) < len(self.runs) or any(
            set(row["problems"]) - set(problems) for row in rows
        ):
            raise DataError(
                f"expected {key} of {policy}'s {reader} at the same problems in all "
                f"of {len(self.runs)} runs, got them in {len(rows)} or at others: "
                "compare finished runs that differ in their seed only"
            )
        return np.array([_by_problem(row, key, problems) for row in rows])


def _differing(first: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    """Settings, dotted, in which two runs differ for more than their seeds."""
    one, two = first["config"], other["config"]
    differ = changes(one, two)
    sources, seeds = differ.get("policy.source"), (one["seed"], two["seed"])
    same = sources is not None and _differ_in_seeds(*sources, seeds)
    allowed = _MAY_DIFFER | ({"policy.source"} if same else set())
    return (differ.keys() - allowed) | _differing_phases(first, other)


def _differing_phases(first: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    """What differs in phases of both (`settled_facts`); each may have others."""
    one, two = (run.get("settled", {}).get("phases", {}) for run in (first, other))
    both = one.keys() & two.keys()
    found = changes({n: one[n] for n in both}, {n: two[n] for n in both})
    return {f"phases.{name}" for name in found}


def _differ_in_seeds(one: str, two: str, seeds: tuple[int, int]) -> bool:
    """Whether two policies differ only where one has one seed and one has the other.

    >>> _differ_in_seeds("v1/seed1/sft", "v1/seed2/sft", (1, 2))
    True
    >>> _differ_in_seeds("v1/seed1/sft", "v1/seed11/sft", (1, 2))
    False
    """
    numbers = [re.split(r"(\d+)", source) for source in (one, two)]
    if len(numbers[0]) != len(numbers[1]):
        return False
    expected = tuple(map(str, seeds))
    return all(a == b or (a, b) == expected for a, b in zip(*numbers, strict=True))


def _by_problem(
    row: Mapping[str, Any], key: str, problems: Sequence[str]
) -> list[float]:
    known: dict[str, list[float]] = {problem: [] for problem in problems}
    for problem, value in zip(row["problems"], row[key], strict=True):
        if value is not None:
            known[problem].append(value)
    return [float(np.mean(each)) if each else np.nan for each in known.values()]


def write_seeds(
    folder: Path,
    claims: Sequence[Claim],
    display: Display,
    *,
    home: Place | None = None,
) -> None:
    """Writes claims.json, table.md, figures and report.html of several seeds.

    Args:
      folder: with the runs.
      claims: on them all.
      display: what a person sees.
      home: where the folder comes to be, if it is a copy.
    """
    content = {"claims": [asdict(claim) for claim in claims]}
    write_whole(folder / "claims.json", encode(content, indent=1))
    table = "\n".join(_markdown(folder, claims))
    write_whole(folder / "table.md", f"{table}\n".encode())
    write_figures(folder)
    report = write_report(folder)
    display.table(table)
    display.say(f"All seeds: {linked((home or folder) / report.name)}")


def _markdown(folder: Path, claims: Sequence[Claim]) -> Iterator[str]:
    for table in held_out_tables(read_run(folder).probed):
        titles, *rows = table
        yield f"| {' | '.join(titles)} |"
        yield "|---" * len(titles) + "|"
        for row in rows:
            yield f"| {' | '.join(row)} |"
        yield ""
    for claim in claims:
        yield (
            f"- {claim.statement}: {claim.verdict} ({claim.difference:+.3f}, "
            f"{claim.low:+.3f} to {claim.high:+.3f}; {claim.detail})"
        )
