"""Log-probabilities on TPUs: the kernel beside chunks, by the compiler's estimates.

    python -m benchmarks.tpu_kernel [--chips v5e,v6e] [--widths 1024,4096] [--json OUT]

Needs no TPU, only the extra `[tpu]`. Of chunks the compiler says how many cycles it
expects of each operation. Of a kernel it says how many instructions it has scheduled
for a tile, and counts a loop in it once; if the tile's product alone takes longer at
the chip's peak, that stands in the table. The table is in Markdown.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.figures import print_facts, write_figures
from benchmarks.tpu_losses import (
    TOPOLOGIES,
    Chip,
    estimated_cycles,
    flops_a_cycle,
)
from fdjax.ops import Chunking, chunked_logprobs, chunked_sum, entropy, token_logprobs
from fdjax.ops.fused_logprobs import TILE
from fdjax.plan.topology import mesh_on, prepare


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is compiled."""

    chips: tuple[Chip, ...] = ("v5e", "v5p", "v6e", "v7x")
    widths: tuple[int, ...] = (1024, 2048, 4096)
    """D."""
    rows: tuple[int, ...] = (256, 1024)
    """Of a chunk."""
    vocabulary: int = 151_936
    tokens: int = 4_096
    json: Path | None = None
    """Where to write all figures."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the compiler says of one program."""

    chip: str
    width: int
    rows: int | None
    """Of a chunk; None for the kernel."""
    peak_bytes: int
    cycles: float
    """For a token."""


def main(config: Config) -> None:
    """Compile, and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIBTPU_INIT_ARGS"] = (
            f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
        )
        prepare()
        found = []
        print(
            "| chip | D | way | peak GiB | cycles a token |\n|---|---:|---|---:|---:|",
        )
        for seen in _figures(config, Path(folder)):
            found.append(seen)
            way = "kernel" if seen.rows is None else f"chunks of {seen.rows:,}"
            peak = seen.peak_bytes / 2**30
            print(
                f"| {seen.chip} | {seen.width:,} | {way} | {peak:.2f} "
                f"| {seen.cycles:,.0f} |",
                flush=True,
            )
    versions = {name: version(name) for name in ("jax", "libtpu")}
    print_facts(versions)
    rows = [asdict(seen) for seen in found]
    write_figures({"versions": versions, "rows": rows}, config.json)


def _figures(config: Config, dump: Path) -> Iterator[Figures]:
    for chip in config.chips:
        mesh = mesh_on(TOPOLOGIES[chip])
        peak = flops_a_cycle(mesh)
        for width in config.widths:
            for rows in (*config.rows, None):
                for file in dump.iterdir():
                    file.unlink()
                compiled = _compile(mesh, config, width, rows)
                if rows is not None:
                    turns = -(-config.tokens // rows)
                    cycles = estimated_cycles(compiled, turns=turns) / config.tokens
                else:
                    tall, wide = TILE
                    product = 2 * tall * wide * width / peak
                    tiles = -(-config.vocabulary // wide)
                    cycles = max(_scheduled(dump), product) * tiles / tall
                memory = compiled.memory_analysis()
                assert memory is not None
                yield Figures(
                    chip=chip,
                    width=width,
                    rows=rows,
                    peak_bytes=memory.peak_memory_in_bytes,
                    cycles=cycles,
                )


def _compile(
    mesh: Mesh, config: Config, width: int, rows: int | None
) -> jax.stages.Compiled:
    """Log-probabilities and entropies of a device's tokens, by the way asked for."""

    def of_logits(logits: Any, rows: Any, shared: Any) -> tuple[Any, Any]:
        logprobs = token_logprobs(logits, rows["tokens"])
        return jnp.sum(logprobs), jnp.sum(entropy(logits))

    def values(hidden: Any, head: Any, tokens: Any) -> Any:
        mask = jnp.ones(tokens.shape, bool)
        if rows is None:
            return chunked_logprobs(hidden, head, tokens, mask=mask)
        return chunked_sum(
            of_logits,
            hidden,
            head,
            mask=mask,
            rows={"tokens": tokens},
            chunking=Chunking(rows=rows),
        )

    def shaped(*shape: int, dtype: Any = jnp.bfloat16) -> Any:
        layout = NamedSharding(mesh, PartitionSpec())
        return jax.ShapeDtypeStruct(shape, dtype, sharding=layout)

    return (
        jax.jit(values)
        .lower(
            shaped(1, config.tokens, width),
            shaped(config.vocabulary, width),
            shaped(1, config.tokens, dtype=jnp.int32),
        )
        .compile()
    )


def _scheduled(dump: Path) -> int:
    """Instructions of the largest kernel among the compiler's reports.

    Raises:
      RuntimeError: the compiler wrote no such report.
    """
    found = [0]
    for file in dump.glob("*schedule-analysis_final_bundles.txt"):
        text = file.read_text()
        said = re.search(r"total scheduled bundles:\s+(\d+)", text)
        if said and "custom-call" in text:
            found.append(int(said[1]))
    if not any(found):
        raise RuntimeError(
            f"expected a schedule of the kernel in {dump}, got none: another version "
            "of libtpu may call it otherwise"
        )
    return max(found)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
