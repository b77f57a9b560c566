"""Verdicts a second: this library beside other ways to use the same Lean.

    python -m benchmarks.verify [--json OUT] [--peers none]

All contenders run the same proofs on the same embedded Lean, round by round and in
turn, so that a busy machine slows all of them. Every round has theorems that nobody has
seen, with several attempts at each, which differ in a comment. Node.js optimises Lean's
code as it runs, so the first rounds only warm it up; the figures are medians over the
rounds after them.
"""

import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import contenders
from benchmarks.contenders import Check, Contender
from benchmarks.figures import machine, write_figures
from fdjax.lean import FakeBackend, Verifier, WasmBackend, install
from fdjax.verify.rows import SubmissionRow, iterate_submissions

PROOFS = Path(__file__).with_name("proofs.jsonl")
CACHED = 20_000
"""Different verdicts in the measurement of the cache."""

BASE = "fdjax, 1 worker"
ALONE = "one process per proof"
"""Gets fewer proofs a round than the others."""

Peer = Literal["lean-interact", "kimina", "none"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    rows: tuple[Path, ...] = (PROOFS,)
    """JSON lines files of proofs, as `fdjax verify` reads them."""
    copies: int = 4
    """Attempts at each theorem in a round."""
    warm: int = 10
    """Rounds before those that are measured."""
    rounds: int = 5
    """Rounds that are measured."""
    alone: int = 6
    """Proofs a round that get a Lean process of their own."""
    peers: tuple[Peer, ...] = ("lean-interact", "kimina")
    """Other people's clients, installed from their packages."""
    json: Path | None = None
    """Where to write all figures."""


@dataclass(kw_only=True)
class Figures:
    """What was seen of one contender."""

    start_s: float
    """Until it can check."""
    seconds: list[float] = field(default_factory=list)
    """Wall time of each round."""
    proofs: int = 0
    """Proofs in a round."""
    proved: int = 0
    """Those that it holds for proved."""

    @property
    def rate(self) -> float:
        """Verdicts a second, median of the rounds."""
        return self.proofs / statistics.median(self.seconds)


def main(config: Config) -> None:
    """Measure and print the tables."""
    console = Console()
    lean = install()
    rows = [row for path in config.rows for row in iterate_submissions(path)]
    usable = _usable(lean, rows)
    if len(usable) < len(rows):
        console.print(f"{len(rows) - len(usable)} proofs have statements that fail")
    about = machine()
    found = _side_by_side(console, lean, usable, config)
    own = _own_figures(lean, usable, config)
    for each in (_table(found), _own_table(own)):
        console.print(each)
    console.print(", ".join(f"{key} {value}" for key, value in about.items()))
    figures = {name: asdict(seen) for name, seen in found.items()}
    result = {"machine": about, "contenders": figures, "own": own}
    write_figures(result, config.json)


def _contenders(config: Config) -> dict[str, Callable[[Path], Contender]]:
    """What makes each contender, by name."""
    c = contenders
    every: dict[str, Callable[[Path], Contender]] = {
        BASE: lambda lean: c.pool(lean, 1),
        "fdjax, 2 workers": lambda lean: c.pool(lean, 2),
        ALONE: c.one_process,
        "REPL client, sequential": c.repl_client,
    }
    if "lean-interact" in config.peers:
        every["LeanInteract, 1 process"] = lambda lean: c.lean_interact(lean, 1)
        every["LeanInteract, 2 processes"] = lambda lean: c.lean_interact(lean, 2)
    if "kimina" in config.peers:
        every["Kimina client, 1 REPL"] = c.kimina
        every["Kimina client, fdjax serve, 2 workers"] = lambda lean: c.served(lean, 2)
    return every


def _side_by_side(
    console: Console, lean: Path, rows: Sequence[SubmissionRow], config: Config
) -> dict[str, Figures]:
    makers = _contenders(config)
    found: dict[str, Figures] = {}
    with ExitStack() as stack, Progress(console=console, transient=True) as progress:
        rounds = config.warm + config.rounds
        task = progress.add_task("starting", total=len(makers) * (rounds + 1))
        checks: dict[str, Check] = {}
        for name, make in makers.items():
            begin = time.perf_counter()
            checks[name] = stack.enter_context(make(lean))
            found[name] = Figures(start_s=time.perf_counter() - begin)
            progress.advance(task)
        for number in range(rounds):
            for name, check in checks.items():
                progress.update(task, description=f"round {number + 1}: {name}")
                is_warm = number >= config.warm
                if name == ALONE and not is_warm:
                    progress.advance(task)
                    continue
                if name == ALONE:
                    step = -(-len(rows) // config.alone)
                    batch = _variants(rows[::step], number, 1)
                else:
                    batch = _variants(rows, number, config.copies)
                begin = time.perf_counter()
                proved = check(batch)
                if is_warm:
                    found[name].seconds.append(time.perf_counter() - begin)
                found[name].proofs = len(batch)
                found[name].proved = sum(proved)
                progress.advance(task)
    return found


def _own_figures(
    lean: Path, rows: Sequence[SubmissionRow], config: Config
) -> dict[str, float]:
    """What only this library is asked for, by name."""
    begin = time.perf_counter()
    statements, overheads = [], []
    with Verifier(lambda: WasmBackend(lean), workers=1) as verifier:
        verifier.verify([(rows[0].problem, rows[0].submission)])
        first_s = time.perf_counter() - begin
        for number in range(config.warm + config.rounds):
            batch = _variants(rows, number, copies=1)
            begin = time.perf_counter()
            verifier.check_statements([row.problem for row in batch])
            stated = time.perf_counter()
            verdicts = verifier.verify([(r.problem, r.submission) for r in batch])
            rest_s = time.perf_counter() - stated - sum(v.seconds for v in verdicts)
            statements.append((stated - begin) / len(batch))
            overheads.append(rest_s / len(batch))
    return {
        "start to first verdict, s": first_s,
        "beyond elaboration, ms a proof": 1e3
        * statistics.median(overheads[config.warm :]),
        "a new statement, ms once": 1e3 * statistics.median(statements[config.warm :]),
        **_cache_figures(),
    }


def _cache_figures() -> dict[str, float]:
    """Hits a second, from the file and from memory."""
    [row] = list(iterate_submissions(PROOFS))[:1]
    items = [(row.problem, f"  trivial -- {number}") for number in range(CACHED)]
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "verdicts.sqlite"
        with Verifier(FakeBackend, cache_path=path) as verifier:
            verifier.verify(items)
        with Verifier(FakeBackend, cache_path=path) as verifier:
            for where in ("file", "memory"):
                begin = time.perf_counter()
                verifier.verify(items)
                seconds = time.perf_counter() - begin
                rates[f"cache hits a second, from {where}"] = CACHED / seconds
    return rates


def _usable(lean: Path, rows: Sequence[SubmissionRow]) -> list[SubmissionRow]:
    """Rows whose statement elaborates; others are no failed proofs."""
    with Verifier(lambda: WasmBackend(lean), workers=1) as verifier:
        reports = verifier.check_statements([row.problem for row in rows])
    return [row for row, report in zip(rows, reports, strict=True) if report.ok]


def _variants(
    rows: Sequence[SubmissionRow], number: int, copies: int
) -> list[SubmissionRow]:
    """The round's theorems, new to everyone, with several attempts at each."""
    batch = []
    for row in rows:
        problem, proof = row.problem, row.submission
        assert isinstance(proof, str)
        name = f"{problem.name}_{number}"
        old = re.compile(rf"(?<![\w.]){re.escape(problem.name)}(?![\w.])")
        renamed = replace(
            problem, name=name, statement=old.sub(name, problem.statement)
        )
        for copy in range(copies):
            text = f"{old.sub(name, proof)}\n-- attempt {copy}"
            batch.append(SubmissionRow(problem=renamed, submission=text))
    return batch


def _table(found: dict[str, Figures]) -> Table:
    table = Table(title="The same proofs on the same Lean")
    table.add_column("")
    for head in ("start, s", "proofs/s", "ratio", "proved"):
        table.add_column(head, justify="right")
    base = found[BASE].rate
    for name, seen in found.items():
        table.add_row(
            name,
            f"{seen.start_s:.1f}",
            f"{seen.rate:.1f}",
            f"{seen.rate / base:.2f}",
            f"{seen.proved}/{seen.proofs}",
        )
    return table


def _own_table(own: dict[str, float]) -> Table:
    table = Table(title="fdjax alone", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in own.items():
        table.add_row(name, f"{value:,.2f}" if value < 1000 else f"{value:,.0f}")
    return table


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
