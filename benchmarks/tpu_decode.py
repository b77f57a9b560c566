"""A token step of the sampler on TPUs: bytes moved, and a bound on tokens a second.

    python -m benchmarks.tpu_decode [--settings v5e,v6e] [--contexts 2048,8192]
      [--json OUT]

Needs no TPU, only the extra `[tpu]`: the program that decodes Qwen3-8B in bfloat16 is
compiled ahead of time and not run. Of one token step of all slots, on each chip:

- needed: weights, once, and the keys and values of each row's context;
- moved: what operations of the compiled program read from the chip's memory and write
  to it. Of the attention kernel the compiler says nothing; it reads keys and values of
  512 tokens at a time, so each row's context is filled up to that;
- bound: tokens a second and chip, if the memory's bandwidth were all that takes time;
- cycles: the compiler's estimate, and what it has none for at the chip's bandwidths:
  the kernel's reading and what chips exchange.

What runs once a program, such as laying out weights anew, counts a share of its steps.
Tables are in Markdown.
"""

import math
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
from fdjax.model import Model, pages_sharding
from fdjax.model.paged import KERNEL_TOKENS
from fdjax.plan.chips import chip_of
from fdjax.plan.collectives import KINDS
from fdjax.plan.hlo import Program
from fdjax.plan.sizes import SIZES
from fdjax.plan.topology import mesh_on, prepare
from fdjax.plan.traffic import Move, cycles, moves, streamed
from fdjax.sampling import SamplingConfig
from fdjax.sampling.programs import Slots, decode_program
from fdjax.sampling.weights import weights_layout
from fdjax.sharding import batch_parts

LONGEST, PAGE, STEPS = 8_192, 128, 32
"""Tokens of a slot and of a page, and token steps of a program."""
QWEN3_8B = SIZES["qwen3-8b"]
SAMPLING = SamplingConfig(max_new_tokens=LONGEST, stop_tokens=(151_645,))


@dataclass(frozen=True)
class Setting:
    """Slots on a slice, in parts of so many chips, over which heads are cut."""

    topology: str
    parts: int
    chips: int
    slots: int = 64


SETTINGS = {
    "v5e": Setting("v5e:2x4", 1, 8),
    "v5p": Setting("v5p:2x2x1", 1, 4),
    "v6e": Setting("v6e:2x2", 1, 4),
    "v5p, 512 slots": Setting("v5p:2x4x4", 8, 4, slots=512),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is compiled."""

    settings: tuple[str, ...] = tuple(SETTINGS)
    contexts: tuple[int, ...] = (2_048, LONGEST)
    """Tokens of every row, those that it draws included."""
    json: Path | None = None
    """Where to write all figures."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One token step at one context, on each chip."""

    setting: str
    context: int
    weights_bytes: int
    """All but the embedding, of which each row reads one line."""
    context_bytes: int
    """Keys and values of every row."""
    moved_weights_bytes: int
    moved_context_bytes: int
    moved_rest_bytes: int
    """Activations that leave the fast memory, and new keys and values."""
    exchanged_bytes: int
    """Received from other chips, at most."""
    ratio: float
    """Moved over needed."""
    bound: float
    """Tokens a second and chip that the memory's bandwidth allows."""
    estimated_cycles: int
    """The compiler's, of all but the kernel and what chips exchange."""
    kernel_cycles: int
    """To read what the kernel reads, at the memory's bandwidth."""
    exchange_cycles: int
    """At the bandwidth of a ring; no latency."""

    @property
    def cycles(self) -> int:
        """All three."""
        return self.estimated_cycles + self.kernel_cycles + self.exchange_cycles


def main(config: Config) -> None:
    """Compile, and print the table."""
    prepare()
    found = []
    print(
        "| setting | context | needed GB | moved GB | ratio | bound, tokens/s/chip "
        "| cycles |\n|---|---:|---:|---:|---:|---:|---:|"
    )
    for name in config.settings:
        for seen in figures(name, config.contexts):
            found.append(seen)
            needed = seen.weights_bytes + seen.context_bytes
            print(
                f"| {name} | {seen.context:,} | {needed / 1e9:.2f} "
                f"| {seen.ratio * needed / 1e9:.2f} | {seen.ratio:.2f} "
                f"| {seen.bound:,.0f} | {seen.cycles / 1e6:.1f} M |",
                flush=True,
            )
    versions = {name: version(name) for name in ("jax", "libtpu")}
    print_facts(versions)
    rows = [asdict(seen) | {"cycles": seen.cycles} for seen in found]
    write_figures({"versions": versions, "rows": rows}, config.json)


def figures(name: str, contexts: tuple[int, ...]) -> Iterator[Figures]:
    """Of a setting, compiled once."""
    setting = SETTINGS[name]
    mesh = mesh_on(setting.topology, fsdp=setting.parts, tensor=setting.chips)
    model = Model(QWEN3_8B, mesh)
    compiled = compile_decode(model, setting.slots)
    yield from step_figures(name, model, compiled, contexts)


def step_figures(
    name: str, model: Model, compiled: jax.stages.Compiled, contexts: tuple[int, ...]
) -> Iterator[Figures]:
    """Of a setting's program, at each context."""
    setting, chip = SETTINGS[name], chip_of(SETTINGS[name].topology)
    program = Program.parse(compiled.as_text() or "")
    body = program.open_loop().named("body")
    assert body is not None
    step = list(program.runs(body))
    once = list(program.runs(program.entry))
    in_step, outside = _counted(program, step), _counted(program, once)
    weights = sum(map(_bytes_on_a_chip, _read_weights(model)))
    moved_weights = max(in_step["params"], streamed(step, jnp.bfloat16(0).nbytes))
    rest = sum(in_step.values()) - in_step["params"] + sum(outside.values()) // STEPS
    exchanged = sum(
        2 * run.times * sum(buffer.size for buffer in run.operation.outputs[:1])
        for run in step
        if run.operation.opcode.removesuffix("-start") in KINDS
    )
    rows = setting.slots // setting.parts
    config = model.config
    token = 2 * 2 * config.num_layers * config.num_kv_heads * config.head_dim
    token //= setting.chips
    block = KERNEL_TOKENS
    for context in contexts:
        needed, read = (
            rows * context * token,
            rows * -(-context // block) * block * token,
        )
        moved = moved_weights + read + rest
        yield Figures(
            setting=name,
            context=context,
            weights_bytes=weights,
            context_bytes=needed,
            moved_weights_bytes=moved_weights,
            moved_context_bytes=read,
            moved_rest_bytes=rest,
            exchanged_bytes=exchanged,
            ratio=moved / (weights + needed),
            bound=rows / setting.chips * chip.bandwidth / moved,
            estimated_cycles=cycles(step) + cycles(once) // STEPS,
            kernel_cycles=round(read / chip.bandwidth * chip.clock),
            exchange_cycles=round(exchanged / chip.ring * chip.clock),
        )


def sampling_shapes(model: Model, slots: int) -> tuple[Any, Any]:
    """Weights and pages for so many slots, as a sampler places them."""
    assert model.mesh is not None
    params = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, jnp.bfloat16, sharding=place
        ),
        params,
        weights_layout(model, params),
    )
    parts, config = batch_parts(model.mesh), model.config
    count = config.num_layers * (1 + slots * LONGEST // PAGE // parts)
    pages = jax.ShapeDtypeStruct(
        (parts, count, PAGE, 2 * config.num_kv_heads, config.head_dim),
        jnp.bfloat16,
        sharding=pages_sharding(model.mesh),
    )
    return params, pages


def whole(mesh: Mesh, *shape: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
    """An array that all devices have."""
    layout = NamedSharding(mesh, PartitionSpec())
    return jax.ShapeDtypeStruct(shape, dtype, sharding=layout)


def compile_decode(model: Model, slots: int) -> jax.stages.Compiled:
    """The program that decodes so many slots over the model's mesh."""
    mesh = model.mesh
    assert mesh is not None
    row: Any = whole(mesh, slots)
    flags: Any = whole(mesh, slots, dtype=jnp.bool_)
    floats: Any = whole(mesh, slots, dtype=jnp.float32)
    words: Any = whole(mesh, slots, 2, dtype=jnp.uint32)
    tables: Any = whole(mesh, slots, LONGEST // PAGE)
    state = Slots(
        token=row,
        length=row,
        number=row,
        budget=row,
        active=flags,
        temperature=floats,
        keys=words,
        tables=tables,
    )
    params, pages = sampling_shapes(model, slots)
    program: Any = decode_program(model, SAMPLING, STEPS)
    steps, wake = whole(mesh), whole(mesh, dtype=jnp.bool_)
    return program.lower(params, pages, state, steps, wake).compile()


def _counted(program: Program, runs: Any) -> dict[str, int]:
    """Bytes by argument of the program; what the kernel does with pages is left out."""
    found = {"params": 0}
    for move in moves(program, runs):
        name = move.origin.partition("[")[0].partition(".")[0]
        if not _reads_context(move):
            found[name] = found.get(name, 0) + move.read + move.written
    return found


def _reads_context(move: Move) -> bool:
    return move.operation.opcode == "custom-call" and move.origin == "pages"


def _read_weights(model: Model) -> list[Any]:
    """All weights but the embedding."""
    params, _ = sampling_shapes(model, 1)
    return jax.tree.leaves({**params, "embedding": ()})


def _bytes_on_a_chip(leaf: Any) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
