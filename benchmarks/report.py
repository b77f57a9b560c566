"""What a report costs: seconds to make, bytes, memory, and seconds to open.

    python -m benchmarks.report [--cases 5000x1000,20000x4000] [--rows 100000]

A case is attempts × characters of a proof, of random words. Each run has two arms and
rows of 40 metrics. A page is made in a process of its own; "make" is processor time.
"open" is the wall time until Chromium, where it is installed, shows the first attempts.
The table is in Markdown.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import machine, print_facts, write_figures
from tests.browsing import BROWSER, browser

_ARMS = ("grpo", "fd")
_LOGGED = 10
_SCORED = 32
_ATTEMPTS_A_STEP = 128


def main() -> None:
    """Measure, and print the table."""
    args = _arguments()
    if args.make:
        _make(args.make)
        return
    facts = machine()
    print_facts(facts)
    titles = ["attempts", "characters", "rows of metrics", "files", "make", "memory"]
    titles += ["page", "open"] if BROWSER else ["page"]
    print(f"\n| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    found = []
    for case in args.cases.split(","):
        attempts, characters = map(int, case.split("x"))
        with tempfile.TemporaryDirectory() as nowhere:
            folder = Path(nowhere) / "run"
            _write_run(folder, attempts, characters, args.rows)
            figures = _measure(folder)
        found.append({"attempts": attempts, "characters": characters} | figures)
        cells = [
            *(f"{attempts:,}", f"{characters:,}", f"{args.rows:,}"),
            f"{figures['files_mb']:.0f} MB",
            f"{figures['make_s']:.1f} s",
            f"{figures['memory_mb']:.0f} MB",
            f"{figures['page_mb']:.1f} MB",
            *([f"{figures['open_s']:.1f} s"] if BROWSER else []),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
    write_figures(facts | {"rows": args.rows, "cases": found}, args.json)


def _measure(folder: Path) -> dict[str, float]:
    files = sum(file.stat().st_size for file in folder.iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.report", "--make", str(folder)],
        capture_output=True,
        check=True,
        text=True,
    )
    page = folder / "report.html"
    figures = json.loads(done.stdout) | {
        "files_mb": files / 1e6,
        "page_mb": page.stat().st_size / 1e6,
    }
    if BROWSER:
        figures["open_s"] = _open_s(page)
    return figures


def _make(folder: Path) -> None:
    """Print processor seconds and peak memory of a report, imports included."""
    from fdjax.plots import write_report

    write_report(folder)
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures = {"make_s": time.process_time(), "memory_mb": used.ru_maxrss / 1e3}
    print(json.dumps(figures))


def _open_s(page: Path) -> float:
    """Until the first attempts are shown."""
    with browser() as tab:
        begun = time.perf_counter()
        tab.open(page)
        tab.wait("document.querySelector('.sample')")
        return time.perf_counter() - begun


def _write_run(folder: Path, attempts: int, characters: int, rows: int) -> None:
    draw = random.Random(0)
    folder.mkdir()
    (folder / "config.json").write_text('{"config": {"seed": 0}}')
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for row in range(rows):
            file.write(json.dumps(_metrics(row // 2 + 1, _ARMS[row % 2], draw)) + "\n")
    words = ["".join(draw.choices("abcdefghij_∀∧→", k=6)) for _ in range(2000)]
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
        for place in range(attempts):
            row = _sample(place, draw.choices(words, k=characters // 7), draw)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _metrics(step: int, arm: str, draw: random.Random) -> dict[str, object]:
    share = draw.random()
    return {
        "arm": arm,
        "step": step,
        "time": 1.7e9 + step,
        "reward/mean": share,
        "verdict/verified": share,
        "verdict/rejected": 1.0 - share,
        "rollout/entropy": draw.random(),
        "time/sample_s": draw.random(),
        "time/update_s": draw.random(),
        **{f"extra/{place}": draw.random() for place in range(33)},
    }


def _sample(place: int, words: list[str], draw: random.Random) -> dict[str, object]:
    step, member = divmod(place // 2, _ATTEMPTS_A_STEP)
    arm = _ARMS[place % 2]
    scored = arm == "fd" and step % _LOGGED == 0 and member < _SCORED
    line = draw.choice(words)
    return {
        "arm": arm,
        "step": step + 1,
        "problem": f"problem_{member // 4}",
        "statement": f"theorem problem_{member // 4} (p q : Prop) : p ∧ q → q ∧ p",
        "proof": " ".join(words),
        "status": draw.choices(("verified", "rejected", "timeout"), (3, 6, 1))[0],
        "messages": [
            {"severity": "error", "line": 1, "column": 2, "text": f"unknown {line}"}
        ],
        "feedback": f"{line} is not known here",
        "reward": draw.choice((0.0, 1.0)),
        "tokens": [f" {word}" for word in words] if scored else None,
        "kl": [draw.random() for _ in words] if scored else None,
        "log_ratio": [draw.gauss(0, 1) for _ in words] if scored else None,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", default="5000x1000,30000x200,20000x4000")
    parser.add_argument("--rows", type=int, default=100_000, help="of metrics.jsonl")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
