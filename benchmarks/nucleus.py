"""What top-k and top-p add to the drawing of a token, beside sorting the vocabulary.

    python -m benchmarks.nucleus [--shape 64x151936] [--json OUT]

Each way draws one token for each row of normally distributed logits, in one process and
in turn, so that other load falls on all alike; the figures are medians. The table is in
Markdown; "/ plain" is by how much drawing from all logits is faster.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks.figures import print_facts, write_figures
from fdjax.sampling import keep_top_k, keep_top_p

Cut = Callable[[jax.Array], jax.Array]
"""From logits [B, V] to those that are drawn from."""


def main() -> None:
    """Measure, and print the table."""
    args = _arguments()
    rows, vocabulary = map(int, args.shape.split("x"))
    noise, drawing = jax.random.split(jax.random.key(args.seed))
    logits = args.deviation * jax.random.normal(noise, (rows, vocabulary))
    ways = _ways(args.k, args.p)
    programs = {
        way: jax.jit(partial(_draw, cut)).lower(drawing, logits).compile()
        for way, cut in ways.items()
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(args.repeats):
        for way, program in programs.items():
            begin = time.perf_counter()
            jax.block_until_ready(program(drawing, logits))
            found[way].append(1e3 * (time.perf_counter() - begin))
    medians = {way: statistics.median(times) for way, times in found.items()}
    print("| way | ms | / plain |\n|---|---:|---:|")
    for way, median in medians.items():
        print(f"| {way} | {median:,.1f} | {median / medians['plain']:.2f} |")
    about = {
        "shape": [rows, vocabulary],
        "platform": jax.default_backend(),
        "cores": os.cpu_count(),
        "jax": version("jax"),
    }
    print_facts(about)
    write_figures({**about, "ms": found}, args.json)


def _ways(k: int, p: float) -> dict[str, Cut]:
    """What is compared, by name."""
    return {
        "plain": lambda logits: logits,
        f"top-k {k}": partial(keep_top_k, k=k),
        f"top-p {p}": partial(keep_top_p, p=p),
        "both": lambda logits: keep_top_p(keep_top_k(logits, k), p),
        f"top-k {k}, lax.top_k": partial(_top_k_by_sort, k=k),
        f"top-p {p}, sorted": partial(_top_p_by_sort, p=p),
    }


def _draw(cut: Cut, key: jax.Array, logits: jax.Array) -> jax.Array:
    return jax.random.categorical(key, cut(logits))


def _top_k_by_sort(logits: jax.Array, k: int) -> jax.Array:
    kept, _ = jax.lax.top_k(logits, k)
    return jnp.where(logits >= kept[..., -1:], logits, -jnp.inf)


def _top_p_by_sort(logits: jax.Array, p: float) -> jax.Array:
    ordered = jnp.sort(logits, axis=-1, descending=True)
    probabilities = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    last = jnp.min(jnp.where(before < p, ordered, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= last, logits, -jnp.inf)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.nucleus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--shape", default="64x151936", help="BxV")
    parser.add_argument("--deviation", type=float, default=2.0, help="of the logits")
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--p", type=float, default=0.95)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
