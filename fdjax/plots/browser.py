"""Data of the report's sample browser: packed, bounded, safe inside a page.

An index of all attempts shown says what filters and orders need. Their texts lie in
compressed blocks, which the page unpacks as it shows them.
"""

import base64
import gzip
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fdjax.plots.lines import Line
from fdjax.plots.style import arm_label
from fdjax.records import Status

__all__ = ["FACTS", "Browser", "browse"]

_LIMIT = 8_000_000
_BLOCK = 1 << 18
"""Characters of the JSON text in a block, about."""
_TEXTS = ("statement", "proof", "feedback")

Row = Mapping[str, Any]

FACTS = (
    *("problem", "run", "line", "step", "attempt", "status", "reward"),
    *("mean", "top", "length", "block", "place"),
)
"""What stands at which place of an attempt in the index. `attempt` counts from 1 at the
same theorem in an iteration; `mean` and `top` are KL in nats; `length` is that of the
proof in characters."""


@dataclass(frozen=True, kw_only=True)
class Browser:
    """What the browser's script reads: JSON, compressed by gzip, in base64."""

    index: str
    """`samples`: for each attempt its `facts`; `lines`, `runs` and `problems`, which
    those name by number; `statuses` in their order."""
    blocks: list[str]
    """Lists of attempts."""
    shown: int
    """Attempts in the index."""
    total: int
    """Attempts that there are."""

    @property
    def size(self) -> int:
        """Characters in the page."""
        return len(self.index) + sum(map(len, self.blocks))


def browse(lines: Sequence[Line], limit: int = _LIMIT) -> Browser:
    """The attempts of some lines for the browser.

    Where they are more than fit, those with KL come first, then as many as possible
    of each run, arm, step and status, drawn with a fixed seed.

    Args:
      lines: of one run or several.
      limit: characters that this adds to the page, at most.
    """
    runs: dict[str, int] = {}
    rows = []
    for place, line in enumerate(lines):
        for part in line.run.parts:
            name = f"{line.run.name}/{part.name}" if line.run.seeds else line.run.name
            run = runs.setdefault(name, len(runs))
            numbers: Counter[tuple[Any, ...]] = Counter()
            for sample in part.samples:
                if sample["arm"] == line.arm:
                    rows.append(_row(sample, run, place, numbers))
    head = {
        "facts": FACTS,
        "runs": list(runs),
        "lines": [
            {
                "label": line.style.label,
                "arm": arm_label(line.arm),
                "place": line.style.place,
            }
            for line in lines
        ],
        "statuses": [status.value for status in Status],
    }
    total, room = len(rows), sum(row["size"] for row in rows)
    browser = _browser(rows, head, total)
    while rows and browser.size > limit:
        room = int(room * 0.95 * limit / browser.size)
        rows = _chosen(rows, room)
        browser = _browser(rows, head, total)
    return browser


def _browser(
    rows: Sequence[dict[str, Any]], head: Mapping[str, Any], total: int
) -> Browser:
    blocks = _blocks(rows)
    problems: dict[str, int] = {}
    samples = [
        [problems.setdefault(row["facts"][0], len(problems)), *row["facts"][1:]]
        for row in rows
    ]
    index = {**head, "problems": list(problems), "samples": samples}
    return Browser(
        index=_packed(_json(index)), blocks=blocks, shown=len(rows), total=total
    )


def _row(
    sample: Row, run: int, line: int, numbers: Counter[tuple[Any, ...]]
) -> dict[str, Any]:
    """An attempt: its facts, and its texts as JSON."""
    # Theorems of one name are told apart.
    theorem = (sample["step"], sample["problem"], sample["statement"])
    numbers[theorem] += 1
    texts: dict[str, Any] = {name: sample.get(name) for name in _TEXTS}
    for name in ("messages", "calls"):
        if sample.get(name):
            texts[name] = sample[name]
    kl = []
    if sample.get("tokens") and sample.get("kl"):
        texts["tokens"] = sample["tokens"]
        for name in ("kl", "log_ratio"):
            if sample.get(name):
                texts[name] = [
                    None if nats is None else round(nats, 4) for nats in sample[name]
                ]
        kl = [nats for nats in texts["kl"] if nats is not None]
    text = _json(texts)
    facts = [
        sample["problem"],
        run,
        line,
        sample["step"],
        numbers[theorem],
        sample["status"] or "judged",  # by another judge than Lean
        sample.get("reward"),
        round(float(np.mean(kl)), 4) if kl else None,
        max(kl) if kl else None,
        len(sample["proof"] or ""),
    ]
    return {"facts": facts, "text": text, "kl": kl, "size": len(text)}


def _chosen(rows: Sequence[Row], room: int) -> list[dict[str, Any]]:
    """Attempts of so many characters at most, spread evenly, in their order."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault((*row["facts"][1:4], row["facts"][5]), []).append(place)
    draw = random.Random(0)
    ranked = []
    for group in groups.values():
        draw.shuffle(group)
        ranked += [
            (not rows[place]["kl"], rank, place) for rank, place in enumerate(group)
        ]
    kept = []
    for *_, place in sorted(ranked):
        if rows[place]["size"] <= room:
            room -= rows[place]["size"]
            kept.append(place)
    return [dict(rows[place]) for place in sorted(kept)]


def _blocks(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Packs the texts and notes in each row's facts where its text lies."""
    found = []
    for number, block in enumerate(_split(rows)):
        for place, row in enumerate(block):
            row["facts"][10:] = [number, place]
        found.append(_packed(f"[{','.join(row['text'] for row in block)}]"))
    return found


def _split(rows: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    block: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        if block and size + row["size"] > _BLOCK:
            yield block
            block, size = [], 0
        block.append(row)
        size += row["size"]
    if block:
        yield block


def _json(value: Any) -> str:
    """JSON text that UTF-8 can hold, with escapes where it has lone surrogates."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()
