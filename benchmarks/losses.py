"""The cost of the losses: memory and time of this library's beside other libraries'.

    python -m benchmarks.losses [--json OUT] [--peers trl,liger,easydel,tunix|none]

Each figure is of the loss and its gradients by the student's hidden states and head,
in float32 on the processor. Every implementation and workload gets a process of its
own, one after the other, with the same inputs. Added memory is the peak during the
first call above what lay in memory before it, without compilation; seconds are medians
over the calls after it. Peers run in environments of their own, made when first needed.

Tables are in Markdown. A ratio is to the best of the peers that compute the same loss:
below 1 is better than all of them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import machine, print_facts, write_figures
from benchmarks.peers import peer_python

PROGRAMS = Path(__file__).parent / "peer_programs" / "losses"
DISTILLATION = ("forward_kl", "reverse_kl", "jsd")
WORKLOADS = {
    "forward_kl": "FD, forward KL",
    "reverse_kl": "FD, reverse KL",
    "jsd": "FD, JSD",
    "grpo": "GRPO",
}
SHAPES = "151936x256,32768x1024"
ROWS = 4
"""B; a batch has this many rows of the same length."""
TOLERANCE = 1e-3
"""Of loss and gradients' norms, relative."""
MEASURES = {"peak_bytes": 1e9, "cpu_s": 1.0, "wall_s": 1.0}
"""What is compared, and its unit in the tables."""

REQUIREMENTS = {
    "trl": ("trl==1.16.0", "torch==2.13.0"),
    "liger": ("liger-kernel==0.8.5", "torch==2.13.0", "numpy==2.4.6"),
    # It does not import without PyTorch and Pillow.
    "easydel": ("easydel==0.3.0", "torch==2.13.0", "pillow==13.0.0"),
    "tunix": ("google-tunix==0.1.7", "jax==0.10.2"),
}


@dataclass(frozen=True)
class Implementation:
    """A way to compute some of the workloads."""

    name: str
    """Of the library, as in the tables."""
    variant: str
    """Which of its ways."""
    script: str
    workloads: tuple[str, ...]
    peer: str | None = None
    """Whose environment it needs; None for this one."""


IMPLEMENTATIONS = (
    Implementation("fdjax", "chunked", "fdjax_losses.py", tuple(WORKLOADS)),
    Implementation("fdjax", "chunked, no metrics", "fdjax_losses.py", tuple(WORKLOADS)),
    Implementation("fdjax", "full logits", "fdjax_losses.py", tuple(WORKLOADS)),
    Implementation("TRL", "chunked", "trl_losses.py", tuple(WORKLOADS), "trl"),
    Implementation("TRL", "SDPO full logits", "trl_losses.py", DISTILLATION, "trl"),
    Implementation("TRL", "SDPO top 100", "trl_losses.py", ("reverse_kl",), "trl"),
    Implementation("Liger", "compiled", "liger_losses.py", tuple(WORKLOADS), "liger"),
    Implementation("Liger", "eager", "liger_losses.py", tuple(WORKLOADS), "liger"),
    Implementation(
        "EasyDeL", "chunked", "easydel_losses.py", ("forward_kl", "grpo"), "easydel"
    ),
    Implementation(
        "EasyDeL", "full logits", "easydel_losses.py", tuple(WORKLOADS), "easydel"
    ),
    Implementation(
        "Tunix", "full logits", "tunix_losses.py", ("forward_kl", "grpo"), "tunix"
    ),
)


@dataclass(frozen=True)
class Row:
    """What was seen of one process."""

    implementation: Implementation
    workload: str
    found: dict[str, Any]
    """The process's report, or why there is none."""
    same: str = ""
    """Whether the loss is everyone's."""

    @property
    def is_rival(self) -> bool:
        """A peer's, of the same loss."""
        return self.implementation.peer is not None and self.same == "yes"

    def value(self, measure: str) -> float | None:
        """The figure, if there is one: lists by their median."""
        found = self.found.get(measure)
        return statistics.median(found) if isinstance(found, list) else found


def main() -> None:
    """Measure, and print the tables."""
    args = _arguments()
    wanted = () if args.peers == "none" else tuple(args.peers.split(","))
    if unknown := set(wanted) - set(REQUIREMENTS):
        sys.exit(f"losses: unknown peers {sorted(unknown)}; use {list(REQUIREMENTS)}")
    pythons = {peer: _environment(peer) for peer in wanted}
    about = machine()
    result: dict[str, Any] = {
        "machine": about,
        "settings": vars(args) | {"json": None},
    }
    result["versions"], result["rows"] = {}, []
    for shape in args.shapes.split(","):
        vocabulary, width = map(int, shape.split("x"))
        rows = []
        for group in _side_by_side(pythons, vocabulary, width, args):
            rows += group
            for row in group:
                known = row.found.get("versions", {})
                result["versions"].setdefault(row.implementation.name, {}).update(known)
                result["rows"].append(_record(row, vocabulary, width, args.tokens))
            write_figures(result, args.json)
        title = f"V = {vocabulary:,}, D = {width:,}, {args.tokens:,} tokens, float32"
        print(f"\n### {title}\n\n{_table(rows)}\n", flush=True)
    if args.memory != "none":
        vocabulary, width = map(int, args.memory.split("x"))
        task = {
            "variant": "temporaries",
            "shape": [vocabulary, width],
            "workloads": [
                name for name in WORKLOADS if name in args.workloads.split(",")
            ],
        }
        found = _run(Path(sys.executable), "fdjax_losses.py", task, args.timeout)
        result["memory versus N"] = found.get("rows", found)
        title = f"Memory versus N: V = {vocabulary:,}, D = {width:,}"
        print(f"\n### {title}\n\n{_memory_table(found)}\n", flush=True)
    print_facts(about)
    write_figures(result, args.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.losses",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument(
        "--peers", default=",".join(REQUIREMENTS), help="comma-separated, or none"
    )
    parser.add_argument("--shapes", default=SHAPES, help="VxD, comma-separated")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--tokens", type=int, default=2048, help="B times T")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls")
    parser.add_argument("--timeout", type=float, default=600, help="s for a process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--memory", default="151936x256", help="VxD of memory versus N, or none"
    )
    return parser.parse_args()


def _environment(peer: str) -> Path | str:
    """The peer's Python, or why there is none."""
    try:
        return peer_python(peer, REQUIREMENTS[peer])
    except subprocess.CalledProcessError as error:
        return f"cannot be installed here: pip ended with {error.returncode}"


def _side_by_side(
    pythons: dict[str, Path | str], vocabulary: int, width: int, args: Any
) -> Iterator[list[Row]]:
    """Each workload's rows."""
    workloads = [name for name in WORKLOADS if name in args.workloads.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        for name, array in _inputs(vocabulary, width, args.tokens, args.seed):
            np.save(Path(folder) / f"{name}.npy", array)
        for workload in workloads:
            group = []
            for each in IMPLEMENTATIONS:
                is_wanted = each.peer is None or each.peer in pythons
                if not is_wanted or workload not in each.workloads:
                    continue
                python = pythons[each.peer] if each.peer else Path(sys.executable)
                task = {
                    "workload": workload,
                    "variant": each.variant,
                    "folder": folder,
                    "repeats": args.repeats,
                }
                found = (
                    {"error": python}
                    if isinstance(python, str)
                    else _run(python, each.script, task, args.timeout)
                )
                row = Row(each, workload, found)
                _progress(row, vocabulary, width)
                group.append(row)
            yield _compared(group)


def _inputs(
    vocabulary: int, width: int, tokens: int, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays by name: a teacher that knows more, and log-probabilities near ours."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    rows, length = ROWS, tokens // ROWS
    hidden, head = normal(rows, length, width), normal(vocabulary, width)
    head *= 2 / width**0.5  # logits have a standard deviation of 2
    yield "hidden", hidden
    yield "head", head
    yield "teacher_hidden", 0.7 * hidden + 0.7 * normal(rows, length, width)
    yield "teacher_head", head + normal(vocabulary, width) * (0.5 / width**0.5)
    ids = random.integers(0, vocabulary, (rows, length), dtype=np.int32)
    yield "tokens", ids
    yield "advantages", normal(rows)
    moved = 0.3 * normal(rows, length)
    flat, chosen = hidden.reshape(-1, width), ids.reshape(-1)
    logprobs = np.empty(len(flat), np.float32)
    for start in range(0, len(flat), 64):
        part = slice(start, start + 64)
        logits = flat[part] @ head.T
        top = logits.max(-1)
        total = np.log(np.exp(logits - top[:, None]).sum(-1)) + top
        logprobs[part] = logits[np.arange(len(logits)), chosen[part]] - total
    yield "old_logprobs", logprobs.reshape(rows, length) + moved


def _run(
    python: Path, script: str, task: dict[str, Any], timeout: float
) -> dict[str, Any]:
    """The process's report, or {"error": why}."""
    command = [str(python), str(PROGRAMS / script), json.dumps(task)]
    quiet = {
        "JAX_PLATFORMS": "cpu",
        "HF_HUB_OFFLINE": "1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    try:
        ended = subprocess.run(
            command,
            env={**os.environ, **quiet},
            capture_output=True,
            check=False,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done in {timeout:g} s"}
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    if ended.returncode or not lines:
        said = [line for line in ended.stderr.splitlines() if line.strip()]
        why = said[-1].strip()[:200] if said else "no output"
        return {"error": f"ended with {ended.returncode}: {why}"}
    return json.loads(lines[-1])


def _compared(rows: Sequence[Row]) -> list[Row]:
    """The rows of one workload, with whether their loss is the first one's."""
    base = next((row.found for row in rows if "loss" in row.found), {})

    def verdict(found: dict[str, Any]) -> str:
        if "error" in found:
            return ""
        if found["differs"]:
            return f"approximate: {found['differs']}"
        apart = {
            key: abs(found[key] - base[key]) / max(abs(base[key]), 1e-30)
            for key in ("loss", "hidden_norm", "head_norm")
        }
        worst = max(apart, key=lambda key: apart[key])
        is_same = apart[worst] <= TOLERANCE
        return "yes" if is_same else f"no: {worst} is {apart[worst]:.1e} apart"

    return [replace(row, same=verdict(row.found)) for row in rows]


def _best(rows: Sequence[Row], workload: str, measure: str) -> float | None:
    """The best peer's figure, if one has any."""
    values = [
        value
        for row in rows
        if row.workload == workload and row.is_rival
        if (value := row.value(measure)) is not None
    ]
    return min(values, default=None)


def _table(rows: Sequence[Row]) -> str:
    heads = ("implementation", "workload", "added peak GB", "ratio")
    heads = (*heads, "cpu-s", "ratio", "wall-s", "ratio", "same loss")
    lines = [heads, ("---", "---", *["---:"] * 6, "---")]
    for row in rows:
        cells = [_title(row), WORKLOADS[row.workload]]
        for measure, unit in MEASURES.items():
            value = row.value(measure)
            best = _best(rows, row.workload, measure)
            cells.append("" if value is None else f"{value / unit:.2f}")
            cells.append(f"{value / best:.2f}" if value is not None and best else "")
        lines.append((*cells, row.found.get("error", row.same).replace("|", "/")))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _memory_table(found: dict[str, Any]) -> str:
    if "error" in found:
        return str(found["error"])
    sizes = {
        (row["variant"], row["workload"], row["tokens"]): row["temp_bytes"]
        for row in found["rows"]
    }
    tokens = sorted({size for *_, size in sizes})
    heads = (
        "implementation",
        "workload",
        *(f"N = {n:,}, temporary GB" for n in tokens),
    )
    lines = [heads, ("---", "---", *["---:"] * len(tokens))]
    for variant, workload in dict.fromkeys(key[:2] for key in sizes):
        cells = [f"{sizes[variant, workload, n] / 1e9:.2f}" for n in tokens]
        lines.append((f"fdjax, {variant}", WORKLOADS[workload], *cells))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _title(row: Row) -> str:
    """Library, version and way."""
    each = row.implementation
    if each.peer is None:
        known = version("fdjax")
    else:
        known = REQUIREMENTS[each.peer][0].partition("==")[2]
    return f"{each.name} {known}, {each.variant}"


def _record(row: Row, vocabulary: int, width: int, tokens: int) -> dict[str, Any]:
    shape = {"vocabulary": vocabulary, "width": width, "tokens": tokens}
    least = {
        f"least_{key}": min(row.found[key])
        for key in ("cpu_s", "wall_s")
        if row.found.get(key)
    }
    return {
        "implementation": row.implementation.name,
        "variant": row.implementation.variant,
        "workload": row.workload,
        **shape,
        **row.found,
        **least,
        "same": row.same,
    }


def _progress(row: Row, vocabulary: int, width: int) -> None:
    found = row.found
    said = found.get("error") or (
        f"{found['peak_bytes'] / 1e9:.2f} GB, {row.value('cpu_s'):.1f} cpu-s"
    )
    where = f"V={vocabulary} D={width} {WORKLOADS[row.workload]}: {_title(row)}"
    print(f"{where}: {said}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
