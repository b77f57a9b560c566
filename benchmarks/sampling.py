"""The sampler of slots beside transformers and Tunix, and beside whole batches.

    python -m benchmarks.sampling FOLDER [--json OUT]
      [--transformers-python PYTHON|none] [--tunix-python PYTHON|none]

FOLDER holds a pretrained model in Hugging Face's format; a 135M model is what the
documentation has. In float32, on the processor, from random prompts, no stop tokens:

- throughput: so many tokens after each prompt of a batch, prompts read included;
- long tail: most requests end early, some run long. Beside it the same sampler with
  whole batches: each waits until the longest of the one before has ended;
- group: members of a group share their prompt, or each has one of its own.

Contenders take turns in this process, peers in processes of their own; a peer's
environment is made when first needed. Tunix reads Llamas alone. The first turn of each
is not counted; before the long tail, a batch with one long row warms up instead.
Tables are in Markdown, figures are medians; on a busy machine read those of processor
seconds.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
import tyro

from benchmarks.figures import machine, print_facts, write_figures
from benchmarks.peers import peer_python
from fdjax.checkpoint import load_pretrained
from fdjax.model import Model
from fdjax.plots.drawing import blank, dress
from fdjax.sampling import SamplingConfig, SlotSampler, SlotsConfig
from fdjax.sharding import make_mesh

PROGRAMS = Path(__file__).parent / "peer_programs" / "sampling"
PEERS = {
    "transformers": (
        "transformers_generate.py",
        ("transformers==5.24.0", "torch==2.13.0"),
    ),
    "Tunix": ("tunix_sampler.py", ("google-tunix==0.1.7", "jax==0.10.2")),
}
"""The program of each, and what it needs."""
PARTS = ("throughput", "long tail", "group")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    folder: tyro.conf.Positional[Path]
    parts: tuple[str, ...] = PARTS
    batches: tuple[int, ...] = (1, 16, 64)
    """Rows, for throughput."""
    prompt: int = 128
    """Tokens of a prompt."""
    new_tokens: int = 128
    """Tokens after each, for throughput."""
    requests: int = 256
    """Of the long tail."""
    slots: int = 32
    """Of the long tail."""
    tail: int = 1_024
    """Tokens of the longest requests; one in ten is one of them."""
    group: int = 16
    """Members."""
    group_prompt: int = 1_000
    """Tokens of the group's prompt."""
    group_tokens: int = 32
    """Tokens after it."""
    page: int = 64
    repeats: int = 2
    """Turns that are counted."""
    transformers_python: str | None = None
    """With PyTorch and transformers; "none" to leave them out."""
    tunix_python: str | None = None
    """With Tunix; "none" to leave it out."""
    figure: Path | None = None
    """Where to draw how many slots are busy in the long tail."""
    json: Path | None = None
    """Where to write all figures."""


def main(config: Config) -> None:
    """Measure, and print the tables."""
    if unknown := set(config.parts) - set(PARTS):
        sys.exit(f"sampling: unknown parts {sorted(unknown)}; use {list(PARTS)}")
    about = machine() | {"jax": version("jax"), "fdjax": version("fdjax")}
    found: dict[str, Any] = {"machine": about, "settings": asdict(config)}
    found["settings"] |= {"folder": config.folder.name, "json": None, "figure": None}
    source = load_pretrained(config.folder, make_mesh())
    params = jax.device_put(source.params, jax.devices()[0])
    model = Model(source.model.config)
    with ExitStack() as stack:
        for part in config.parts:
            match part:
                case "throughput":
                    pythons = (config.transformers_python, config.tunix_python)
                    peers = {
                        name: stack.enter_context(_peer(name, python, config.folder))
                        for name, python in zip(PEERS, pythons, strict=True)
                        if python != "none"
                    }
                    rows = list(_throughput(model, params, config, peers))
                    found["versions"] = {
                        name: peer.versions for name, peer in peers.items()
                    }
                case "long tail":
                    rows = [_long_tail(model, params, config)]
                case _:
                    rows = [_group(model, params, config)]
            found[part] = rows
            print(f"\n### {part}\n\n{_table(rows)}\n", flush=True)
            write_figures(found, config.json)
    print_facts(about)


class Peer:
    """A process that answers a line with a line."""

    def __init__(self, process: subprocess.Popen[str], said: IO[str]) -> None:
        self._process, self._said = process, said
        self.versions: dict[str, str] = {}

    def ask(self, **task: Any) -> dict[str, Any]:
        """Its answer.

        Raises:
          RuntimeError: it gave none; with what it said last.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(task), file=self._process.stdin, flush=True)
        if answer := self._process.stdout.readline():
            return json.loads(answer)
        self._said.seek(0)
        raise RuntimeError(f"a peer gave no answer: {self._said.read()[-2000:]}")


@contextmanager
def _peer(name: str, python: str | None, folder: Path) -> Iterator[Peer]:
    program, requirements = PEERS[name]
    python = python or str(peer_python(f"sampling-{name.lower()}", requirements))
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            [python, str(PROGRAMS / program)],
            # PyTorch's idle threads spin, else, and take what the others need.
            env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as process,
    ):
        peer = Peer(process, said)
        peer.versions = peer.ask(do="load", folder=str(folder))["versions"]
        yield peer
        assert process.stdin is not None
        process.stdin.close()


def _throughput(
    model: Model, params: Any, config: Config, peers: dict[str, Peer]
) -> Iterator[dict[str, Any]]:
    longest = config.prompt + config.new_tokens
    sampling = SamplingConfig(max_new_tokens=config.new_tokens)
    for batch in config.batches:
        rng = np.random.default_rng(batch)
        size = model.config.vocab_size
        # Other prompts each turn: none is found in pages.
        fresh = (
            rng.integers(3, size, (batch, config.prompt), np.int32)
            for _ in range(9_999)
        )
        sampler = SlotSampler(
            model,
            sampling,
            SlotsConfig(longest=longest, slots=batch, page=config.page),
        )
        sampler.publish(params, 0)

        def by_slots(prompts: np.ndarray, sampler: SlotSampler = sampler) -> Any:
            return _seconds(
                lambda: _all(sampler, prompts, [config.new_tokens] * len(prompts))
            )

        ways: dict[str, Callable[[np.ndarray], Any]] = {"slots": by_slots}
        for name, peer in peers.items():

            def by_peer(prompts: np.ndarray, peer: Peer = peer) -> Any:
                return peer.ask(
                    do="batch", prompts=prompts.tolist(), new_tokens=config.new_tokens
                )

            ways[name] = by_peer
        tokens = batch * config.new_tokens
        found = _turns(ways, fresh, config.repeats, tokens)
        yield {"batch": batch} | found | _programs(sampler)
        sampler.close()


def _long_tail(model: Model, params: Any, config: Config) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    size = model.config.vocab_size
    short = rng.integers(8, max(config.tail // 8, 9), config.requests)
    is_long = rng.random(config.requests) < 0.1
    budgets = np.where(is_long, config.tail, short).tolist()
    sampling = SamplingConfig(max_new_tokens=config.tail)
    sampler = SlotSampler(
        model,
        sampling,
        SlotsConfig(
            longest=config.prompt + config.tail, slots=config.slots, page=config.page
        ),
    )
    sampler.publish(params, 0)
    busy: list[float] = []
    courses: dict[str, list[tuple[int, float]]] = {}

    def by_slots(prompts: np.ndarray) -> Any:
        courses["filled again"] = []
        found = _seconds(
            lambda: busy.append(
                _all(sampler, prompts, budgets, courses["filled again"])
            )
        )
        return found

    def whole(prompts: np.ndarray) -> Any:
        courses["whole batches"] = course = []

        def all_batches() -> None:
            for start in range(0, config.requests, config.slots):
                some = slice(start, start + config.slots)
                own: list[tuple[int, float]] = []
                _all(sampler, prompts[some], budgets[some], own)
                done = course[-1][0] if course else 0
                course.extend((done + steps, share) for steps, share in own)

        return _seconds(all_batches)

    fresh = (
        rng.integers(3, size, (config.requests, config.prompt), np.int32)
        for _ in range(9_999)
    )
    ways = {"slots": by_slots, "whole batches": whole}
    # In place of a whole turn that is not counted: one takes minutes.
    some = next(fresh)[: config.slots]
    _all(sampler, some, [config.tail, *([8] * (len(some) - 1))])
    found = _turns(ways, fresh, config.repeats, sum(budgets), uncounted=0)
    found |= {"busy while any wait": round(statistics.median(busy), 3)}
    if config.figure is not None:
        _draw(courses, config.figure)
    return {"requests": config.requests} | found | _programs(sampler)


def _group(model: Model, params: Any, config: Config) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    size = model.config.vocab_size
    sampler = SlotSampler(
        model,
        SamplingConfig(max_new_tokens=config.group_tokens),
        SlotsConfig(
            longest=config.group_prompt + config.group_tokens,
            slots=config.group,
            page=config.page,
        ),
    )
    sampler.publish(params, 0)
    budgets = [config.group_tokens] * config.group

    def shared(prompts: np.ndarray) -> Any:
        same = np.repeat(prompts[:1], config.group, axis=0)
        return _seconds(lambda: _all(sampler, same, budgets))

    def own(prompts: np.ndarray) -> Any:
        return _seconds(lambda: _all(sampler, prompts, budgets))

    fresh = (
        rng.integers(3, size, (config.group, config.group_prompt), np.int32)
        for _ in range(9_999)
    )
    ways = {"slots": shared, "a prompt each": own}
    tokens = config.group * config.group_tokens
    found = _turns(ways, fresh, config.repeats, tokens)
    return {"group": config.group} | found | _programs(sampler)


def _programs(sampler: SlotSampler) -> dict[str, int]:
    return {"compiled programs": sampler.use().programs}


def _all(
    sampler: SlotSampler,
    prompts: np.ndarray,
    budgets: Sequence[int],
    course: list[tuple[int, float]] | None = None,
) -> float:
    """Samples for all; the share of busy slots while any request waited for one.

    `course` gets the share of busy slots over the token steps since the beginning.
    """
    before = sampler.use()
    futures = [
        sampler.submit(row, jax.random.key(number), max_new_tokens=budget)
        for number, (row, budget) in enumerate(zip(prompts, budgets, strict=True))
    ]
    busy = sampler.use()
    last, goes_on = before, True
    while goes_on:
        goes_on = sampler.step()
        now = sampler.use()
        if course is not None and now.steps > last.steps:
            share = (now.drawn - last.drawn) / ((now.steps - last.steps) * now.slots)
            course.append((now.steps - before.steps, share))
        last = now
        if sum(not future.done() for future in futures) > before.slots:
            busy = now
    lengths = [len(future.result(timeout=0).tokens) for future in futures]
    assert lengths == list(budgets)
    steps = busy.steps - before.steps
    return (busy.drawn - before.drawn) / (steps * before.slots) if steps else 1.0


def _draw(courses: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """The share of busy slots over the token steps, of the last turn."""
    figure = blank((8.0, 3.2))
    axes = figure.subplots()
    dress(axes, "token steps", "share of busy slots")
    for (name, course), colour in zip(courses.items(), ("C0", "C1"), strict=True):
        steps, shares = zip(*course, strict=True)
        axes.step(steps, shares, where="pre", color=colour, label=name)
    axes.set_ylim(0, 1.05)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def _turns(
    ways: dict[str, Callable[[np.ndarray], Any]],
    fresh: Iterator[np.ndarray],
    repeats: int,
    tokens: int,
    uncounted: int = 1,
) -> dict[str, Any]:
    """Tokens a second of each way, by the clock and by the processor, and ratios."""
    times: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for turn in range(uncounted + repeats):
        prompts = next(fresh)
        for way, run in ways.items():
            found = run(prompts)
            print(f"turn {turn}, {way}: {found}", file=sys.stderr, flush=True)
            if turn >= uncounted:
                times[way].append(found)
    result: dict[str, Any] = {"tokens": tokens, "times": times}
    first = next(iter(ways))
    for kind in ("wall_s", "cpu_s"):
        median = {
            way: statistics.median(one[kind] for one in times[way]) for way in ways
        }
        for way in ways:
            result[f"{way}, tokens/{kind[:-2]}-s"] = round(tokens / median[way], 1)
        for way in ways:
            if way != first:
                name = f"{first} / {way}, {kind[:-2]}"
                result[name] = round(median[way] / median[first], 2)
    return result


def _seconds(call: Callable[[], Any]) -> dict[str, float]:
    """By the clock, and of the processor for all threads."""
    begin, wall = _processor_seconds(), time.perf_counter()
    call()
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": _processor_seconds() - begin,
    }


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each figure, a column for each row."""
    names = [name for name in rows[0] if name != "times"]
    first, *rest = names
    head = [first, *(str(row[first]) for row in rows)]
    lines = [head, ["---", *["---:"] * len(rows)]]
    lines += [[name, *(f"{row[name]:,}" for row in rows)] for name in rest]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
