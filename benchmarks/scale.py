"""Sizes that fit: optimizer steps compiled for slices of TPUs that are not here.

    python -m benchmarks.scale [--most 3] [--only qwen3-8b,v5e-64] [--jobs 2]

Needs no TPU, only the extra `[tpu]`. A cell is a whole optimizer step of a policy on a
slice: Feedback Distillation or GRPO, with losses over a chunk of tokens at a time, as
fdjax has them, or over all logits at once. Cells that were compiled are kept in
`docs/scale.json`: the same command goes on with those that are left, the most telling
first, and writes the table in `docs/scale.md` anew after each.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import tyro
from jaxtyping import Array
from rich.progress import Progress

from experiments import prover
from fdjax.encoding import decode, encode
from fdjax.files import write_whole
from fdjax.model import Model
from fdjax.plan import Subject
from fdjax.plan.bounds import step_stage
from fdjax.plan.chips import CHIPS, GIB, chip_of
from fdjax.plan.collectives import summed
from fdjax.plan.compiling import compile_job
from fdjax.plan.programs import Job, step
from fdjax.plan.residency import held
from fdjax.plan.topology import prepare
from fdjax.run import MeshConfig, PolicyConfig
from fdjax.train import Objective, make_objective, response_hidden
from fdjax.train.forward import teacher_hidden
from fdjax.train.terms import Term, Tokens, TokenTerm

__all__ = ["CELLS", "Cell", "all_logits", "table"]

SLICES = {
    "v5e-64": "v5e:8x8",
    "v5p-64": "v5p:2x4x4",
    "v6e-64": "v6e:8x8",
    "v5e-16": "v5e:4x4",
    "v5e-256": "v5e:16x16",
    "v5p-128": "v5p:4x4x4",
    "tpu7x-8": "tpu7x:2x2x1",
}
"""As they are sold, a v5p and a TPU7x by cores, to what compilers call them."""
POLICIES = ("qwen3-8b", "qwen3-32b", "llama-3-8b", "qwen3-4b", "qwen3-0.6b")
DOCS = Path(__file__).parents[1] / "docs"


class Cell(NamedTuple):
    """A step."""

    policy: str
    where: str
    """Among `SLICES`."""
    algorithm: str
    """fd or grpo."""
    losses: str
    """bounded, or all logits."""

    @property
    def key(self) -> str:
        """In the file of figures."""
        return ", ".join(self)

    @property
    def place(self) -> str:
        """Of what is held, whatever the losses."""
        return f"{self.policy}, {self.where}, {self.algorithm}"


CELLS = sorted(
    map(
        Cell._make,
        itertools.product(POLICIES, SLICES, ("fd", "grpo"), ("bounded", "all logits")),
    ),
    key=lambda cell: (
        POLICIES.index(cell.policy) + list(SLICES).index(cell.where) // 3,
        cell.algorithm == "grpo",
        list(SLICES).index(cell.where),
    ),
)
"""All of them, the most telling first."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is compiled."""

    most: int | None = None
    """Cells at most, 0 to count only what is held; all that are left by default."""
    only: str = ""
    """Words that a cell's name has, between commas: qwen3-8b,v5e-64,fd."""
    jobs: int = 1
    """Cells that are compiled at a time; each takes a core and up to 4 GB."""


def main(config: Config) -> None:
    """Compile what is left, and write the table after each."""
    prepare()
    path = DOCS / "scale.json"
    kept = decode(path.read_bytes()) if path.exists() else {"held": {}, "cells": {}}
    always, found = kept["held"], kept["cells"]

    def write() -> None:
        write_whole(path, encode({"held": always, "cells": found}, indent=1))
        write_table(always, found)

    for cell in CELLS:
        if cell.place not in always:
            run = subject(cell)
            phase = run.phases[cell.algorithm == "grpo"]
            always[cell.place] = sum(held(run, phase).values())
    write()
    words = [word.strip() for word in config.only.split(",") if word.strip()]
    left = [
        cell
        for cell in CELLS
        if cell.key not in found
        and always[cell.place] < chip_of(SLICES[cell.where]).usable_bytes
        and all(word in cell for word in words)
    ]
    chosen = left[: config.most]
    with (
        ProcessPoolExecutor(
            config.jobs, mp_context=get_context("spawn"), initializer=prepare
        ) as pool,
        Progress() as progress,
    ):
        cells = {pool.submit(figures, cell): cell for cell in chosen}
        bar = progress.add_task("Compile", total=len(cells))
        try:
            for done in as_completed(cells):
                cell = cells[done]
                found[cell.key] = done.result()
                write()
                progress.console.print(f"{cell.key}: {_shown(found[cell.key])}")
                progress.advance(bar)
        except BaseException:
            # Nobody would keep the figures of those that wait.
            pool.shutdown(cancel_futures=True)
            raise
    print(f"{len(left) - len(chosen)} cells are left")


def subject(cell: Cell) -> Subject:
    """The prover's run with its defaults, parameters cut over all devices.

    Batches are cut so that each device has one attempt at a time.
    """
    devices = _devices(cell)
    rows = prover.CONFIG.attempts.batch_size
    config = replace(
        prover.CONFIG,
        policy=PolicyConfig(source=cell.policy),
        mesh=MeshConfig(fsdp=devices),
        microbatches=max(1, rows // devices),
    )
    return Subject(config=config, arms=prover.arms(config), topology=SLICES[cell.where])


def figures(cell: Cell) -> dict[str, Any]:
    """What the compiler says of a cell, in bytes and seconds."""
    run = subject(cell)
    phase = run.phases[cell.algorithm == "grpo"]
    objective = None
    if cell.losses == "all logits":
        objective = all_logits(run.model, phase.terms)
    seen = compile_job(
        Job(
            name=cell.key,
            about="",
            phases=(phase.name,),
            lower=partial(step, run, phase, objective),
        ),
        run.chip.usable_bytes,
    )
    bound = step_stage(run, phase, None if seen.refusal else seen.received).floor
    beside = held(run, phase)["pretrained"]
    return {
        "microbatches": phase.microbatches,
        "peak_bytes": seen.peak,
        "fits": not seen.refusal and seen.peak + beside <= run.chip.usable_bytes,
        "refusal": seen.refusal,
        "received_bytes": dict(summed(seen.collectives)),
        "floor": asdict(bound) | {"binds": bound.binds},
        "compile_s": round(seen.seconds),
        "versions": {name: version(name) for name in ("jax", "libtpu")},
    }


def all_logits(model: Model, terms: Sequence[Term]) -> Objective:
    """`make_objective` with the logits of all tokens at once; without metrics.

    Args:
      model: of student and teacher.
      terms: each of tokens.
    """
    bounded = make_objective(model, terms)

    def loss(
        params: Any, teacher: Any, batch: Any, normalizers: Any, step: Array
    ) -> tuple[Array, Any]:
        hidden = response_hidden(model, params, *batch[:4])
        logits = model.head(params, hidden)

        def teacher_logits(reading: Any) -> Array:
            return _apart(
                model.head(teacher, teacher_hidden(model, teacher, batch, reading))
            )

        total = jnp.zeros(())
        for term in terms:
            assert isinstance(term, TokenTerm)
            mask = term.mask(batch)
            value, _ = term.of_tokens(
                Tokens(
                    logits=_apart(logits),
                    tokens=_apart(batch.responses),
                    mask=_apart(mask),
                    rows=jax.tree.map(_apart, term.rows(batch, mask, step)),
                    normalizer=normalizers[term.name],
                    temperature=batch.sampling.temperature,
                    teacher_logits=teacher_logits,
                )
            )
            total += value
        return total, {}

    return replace(bounded, loss=loss)


def _apart(rows: Any) -> Any:
    """[B, T, …] as rows of one token."""
    return rows.reshape(-1, 1, *rows.shape[2:])


def table(always: dict[str, int], found: dict[str, Any]) -> Iterator[str]:
    """Lines of Markdown: peaks in GiB, and what binds the step's floor.

    Args:
      always: bytes held, by `Cell.place`.
      found: `figures` by `Cell.key`.
    """
    titles = ["policy", "slice", "usable", "held, FD"]
    titles += ["FD", "FD, all logits", "GRPO", "GRPO, all logits", "FD step, at least"]
    yield f"| {' | '.join(titles)} |"
    yield f"|---|---{'|---:' * (len(titles) - 2)}|"
    for policy in POLICIES:
        for where, topology in SLICES.items():
            chip = chip_of(topology)
            cells = [
                Cell(policy, where, algorithm, losses)
                for algorithm in ("fd", "grpo")
                for losses in ("bounded", "all logits")
            ]
            size = always.get(cells[0].place)
            shown = [
                "**no**"
                if always.get(cell.place, 0) >= chip.usable_bytes
                else _shown(found.get(cell.key))
                for cell in cells
            ]
            first, bound = found.get(cells[0].key), "not run"
            if first:
                seconds = max(first["floor"][f"{term}_s"] for term in _TERMS)
                bound = f"{seconds:.2g} s, {first['floor']['binds']}"
            row = [policy, where, f"{chip.usable_gib:g}"]
            row += ["not run" if size is None else f"{size / GIB:.2f}", *shown, bound]
            yield f"| {' | '.join(row)} |"


_TERMS = ("compute", "memory", "links")


def _shown(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "not run"
    size = f"{cell['peak_bytes'] / GIB:.2f}"
    if cell["refusal"]:
        return f"**no**, {size} or more"
    return size if cell["fits"] else f"**no**, {size}"


def _devices(cell: Cell) -> int:
    name, _, shape = SLICES[cell.where].partition(":")
    count = CHIPS[name].devices
    for size in shape.split("x"):
        count *= int(size)
    return count


def write_table(always: dict[str, int], found: dict[str, Any]) -> None:
    """Puts the table between the marks of `docs/scale.md`."""
    page = DOCS / "scale.md"
    text = "\n".join(table(always, found))
    marked = re.sub(
        r"(<!-- table -->\n).*?(\n<!-- end -->)",
        lambda match: match[1] + text + match[2],
        page.read_text(),
        flags=re.DOTALL,
    )
    write_whole(page, marked.encode())


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
