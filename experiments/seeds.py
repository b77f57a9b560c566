"""Several seeds of one comparison as one table, in Markdown.

Claims under test: those of `experiments.quickstart`, now over training noise as well.

Command: `python -m experiments.seeds runs/quickstart runs/seed1 runs/seed2`
Hardware: any; it reads each run's eval.json.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.markup import escape

from fdjax.errors import DataError, FdjaxError
from fdjax.eval import ArmResult, Evaluation, load_evaluation
from fdjax.plots import headline_ks
from fdjax.run.console import Display

__all__ = ["main", "seeds_table"]


@dataclass(frozen=True, kw_only=True)
class _Config:
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of finished runs that differ in their seed only."""


def seeds_table(evaluations: Sequence[Evaluation]) -> str:
    """Mean and range over seeds of each arm's measures, then each claim's verdicts.

    Raises:
      DataError: the runs measured different arms, theorems, k or claims.
    """
    first = _measured(evaluations[0])
    if any(_measured(other) != first for other in evaluations[1:]):
        raise DataError(
            "Expected runs with the same arms, theorems, samples, k and claims, got "
            "others; compare runs that differ in their --seed only."
        )
    return "\n".join([*_arms(evaluations), "", *_claims(evaluations)])


def _arms(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    ks = headline_ks(evaluations[0].ks)
    measures: dict[str, Callable[[ArmResult], float]] = {
        **{f"pass@{k}": lambda arm, k=k: _mean(arm.pass_at_k(k)) for k in ks},
        "entropy, nats": lambda arm: _mean(arm.entropy()),
        "distinct proofs": lambda arm: float(np.mean(arm.distinct_proofs)),
    }
    yield "| arm | " + " | ".join(measures) + " |"
    yield "|---" * (len(measures) + 1) + "|"
    for place, arm in enumerate(evaluations[0].arms):
        cells = []
        for measure in measures.values():
            values = [measure(evaluation.arms[place]) for evaluation in evaluations]
            cells.append(f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})")
        yield f"| {arm.arm} | " + " | ".join(cells) + " |"


def _claims(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    for place, claim in enumerate(evaluations[0].claims):
        seeds = [
            f"{one.verdict} ({one.difference:+.3f}, {one.low:+.3f} to {one.high:+.3f})"
            for one in (evaluation.claims[place] for evaluation in evaluations)
        ]
        yield f"- {claim.statement}: " + "; ".join(seeds)


def _measured(evaluation: Evaluation) -> tuple[Any, ...]:
    """What must be the same in all runs of a table."""
    arms = [(arm.arm, arm.theorems, arm.samples) for arm in evaluation.arms]
    return evaluation.ks, arms, [claim.name for claim in evaluation.claims]


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values))


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 0 done, 2 bad input."""
    display = Display()
    try:
        config = tyro.cli(_Config, args=arguments)
        paths = [folder / "eval.json" for folder in config.runs]
        if not paths:
            raise DataError("Expected folders of runs, got none.")
        table = seeds_table([load_evaluation(path) for path in paths])
    except (FdjaxError, OSError) as error:
        display.say(f"[bold red]error[/] {escape(str(error))}")
        return 2
    display.console.print(table, markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
