"""What the TPU's own compiler says of the losses: memory, and cycles by its estimate.

    python -m benchmarks.tpu_losses [--chips v5e,v6e] [--widths 1024,4096] [--json OUT]

Needs no TPU, only the extra `[tpu]`: programs for one device are compiled ahead of time
and not run. Cycles are those that the compiler expects of a chunk, over the chunk's
rows; MXU is the share that the products alone would take at the chip's peak. Tables are
in Markdown.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.figures import print_facts, write_figures
from fdjax.losses import (
    feedback_distillation_loss,
    feedback_distillation_loss_from_hidden,
    grpo_loss,
    token_loss_from_hidden,
)
from fdjax.ops import (
    Chunking,
    forward_kl,
    generalized_jsd,
    head_logits,
    reverse_kl,
    token_logprobs,
)
from fdjax.plan.topology import mesh_on, prepare

Chip = Literal["v5e", "v5p", "v6e", "v7x"]
Workload = Literal["forward_kl", "reverse_kl", "jsd", "grpo"]
TOPOLOGIES = {
    "v5e": "v5e:2x2",
    "v5p": "v5p:2x2x1",
    "v6e": "v6e:2x2",
    "v7x": "tpu7x:2x2x1",
}
"""The smallest slice of each, as the compiler calls it."""
DIVERGENCES = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": partial(generalized_jsd, alpha=0.5),
}


_UNKNOWN = 2**63 - 1
"""The compiler's word for cycles that it cannot estimate."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is compiled."""

    chips: tuple[Chip, ...] = ("v5e", "v5p", "v6e", "v7x")
    widths: tuple[int, ...] = (1024, 2048, 4096)
    """D."""
    rows: tuple[int, ...] = (0, 256, 4096)
    """Rows of a chunk; 0 for as many as the rule says."""
    workloads: tuple[Workload, ...] = ("forward_kl",)
    vocabulary: int = 151_936
    tokens: int = 4_096
    """On a device."""
    json: Path | None = None
    """Where to write all figures."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the compiler says of one program."""

    chip: str
    workload: str
    width: int
    rows: int | None
    """Of a chunk; None for all logits at once."""
    peak_bytes: int
    """Of the device's memory: arguments, gradients and temporaries."""
    cycles: float
    """For a token."""
    mxu: float
    """Share of these that the products would take at the peak of a large product."""


def main(config: Config) -> None:
    """Compile, and print the table."""
    prepare()
    found = []
    print(
        "| chip | loss | D | rows of a chunk | peak GiB | cycles a token | MXU |\n"
        "|---|---|---:|---:|---:|---:|---:|"
    )
    for seen in _figures(config):
        found.append(seen)
        rows = "all logits" if seen.rows is None else f"{seen.rows:,}"
        print(
            f"| {seen.chip} | {seen.workload} | {seen.width:,} | {rows} "
            f"| {seen.peak_bytes / 2**30:.2f} | {seen.cycles:,.0f} | {seen.mxu:.0%} |",
            flush=True,
        )
    versions = {name: version(name) for name in ("jax", "libtpu")}
    print_facts(versions)
    rows = [asdict(seen) for seen in found]
    write_figures({"versions": versions, "rows": rows}, config.json)


def compile_loss(
    mesh: jax.sharding.Mesh,
    workload: str,
    *,
    vocabulary: int,
    width: int,
    batch: tuple[int, int],
    rows: int | None,
    whole: bool = False,
) -> jax.stages.Compiled:
    """A loss and its gradients by hidden states and head, for the mesh.

    Args:
      mesh: rows of the batch lie over fsdp, the head over tensor and fsdp.
      workload: a divergence's name, or grpo.
      vocabulary: V.
      width: D.
      batch: B and T.
      rows: of a chunk; None for the rule.
      whole: over all logits at once instead.
    """
    chunking = Chunking(rows=rows, mesh=mesh)
    scored: dict[str, Any] = {
        "mask": jnp.ones(batch, bool),
        "normalizer": jnp.float32(batch[0] * batch[1]),
    }

    def loss(hidden: Any, head: Any, rest: dict[str, Any]) -> Any:
        if workload == "grpo":
            arrays = {**scored, "old_logprobs": rest["old"], "advantages": rest["adv"]}
            if whole:
                logprobs = token_logprobs(head_logits(hidden, head), rest["tokens"])
                return grpo_loss(logprobs, **arrays)
            return token_loss_from_hidden(
                grpo_loss, hidden, head, rest["tokens"], chunking=chunking, **arrays
            )
        scored["divergence"] = DIVERGENCES[workload]
        if whole:
            return feedback_distillation_loss(
                head_logits(hidden, head),
                teacher_logits=head_logits(rest["hidden"], rest["head"]),
                **scored,
            )
        return feedback_distillation_loss_from_hidden(
            hidden,
            head,
            teacher_hidden=rest["hidden"],
            teacher_head=rest["head"],
            chunking=chunking,
            **scored,
        )

    def shaped(shape: tuple[int, ...], spec: Any, dtype: Any = jnp.bfloat16) -> Any:
        layout = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=layout)

    hidden = shaped((*batch, width), ("fsdp",))
    head = shaped((vocabulary, width), ("tensor", "fsdp"))
    rest = {
        "hidden": hidden,
        "head": head,
        "tokens": shaped(batch, ("fsdp",), jnp.int32),
        "old": shaped(batch, ("fsdp",), jnp.float32),
        "adv": shaped(batch[:1], ("fsdp",), jnp.float32),
    }
    step = jax.jit(
        jax.value_and_grad(loss, argnums=(0, 1), has_aux=True),
        out_shardings=(None, (hidden.sharding, head.sharding)),
    )
    return step.lower(hidden, head, rest).compile()


def estimated_cycles(compiled: jax.stages.Compiled, *, turns: int = 1) -> int:
    """Sum of the compiler's estimates; what is in loops counts `turns` times.

    An operation that it has no estimate for, such as some copies on v7x, adds nothing.
    """
    text = compiled.as_text() or ""
    bodies = set(re.findall(r"body=%?([\w.\-]+)", text))
    total, weight = 0, 1
    for line in text.splitlines():
        if opened := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            weight = turns if opened[1] in bodies else 1
        if said := re.search(r'"estimated_cycles":"(\d+)"', line):
            total += weight * int(said[1]) if int(said[1]) != _UNKNOWN else 0
    return total


def flops_a_cycle(mesh: jax.sharding.Mesh, size: int = 8_192) -> float:
    """Of a large product in bfloat16, by the compiler's estimate."""
    layout = NamedSharding(mesh, PartitionSpec())
    square = jax.ShapeDtypeStruct((size, size), jnp.bfloat16, sharding=layout)
    compiled = jax.jit(jnp.dot).lower(square, square).compile()
    return 2 * size**3 / estimated_cycles(compiled)


def _figures(config: Config) -> Iterator[Figures]:
    for chip in config.chips:
        mesh = mesh_on(TOPOLOGIES[chip])
        peak = flops_a_cycle(mesh)
        for workload in config.workloads:
            for width in config.widths:
                products = 3 if workload == "grpo" else 4
                ideal = products * 2 * config.vocabulary * width / peak
                for asked in (*config.rows, None):
                    # One batch row, as long as there are tokens.
                    batch = (1, config.tokens)
                    compiled = compile_loss(
                        mesh,
                        workload,
                        vocabulary=config.vocabulary,
                        width=width,
                        batch=batch,
                        rows=asked or None,
                        whole=asked is None,
                    )
                    rows = asked
                    if asked == 0:
                        rows = Chunking(mesh=mesh).size(
                            config.tokens, vocabulary=config.vocabulary, width=width
                        )
                    turns = 1 if rows is None else -(-config.tokens // rows)
                    cycles = estimated_cycles(compiled, turns=turns) / config.tokens
                    memory = compiled.memory_analysis()
                    assert memory is not None
                    yield Figures(
                        chip=chip,
                        workload=workload,
                        width=width,
                        rows=rows,
                        peak_bytes=memory.peak_memory_in_bytes,
                        cycles=cycles,
                        mxu=ideal / cycles,
                    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
