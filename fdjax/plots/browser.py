"""Data of the report's sample browser, made safe to stand inside a page."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["browser_data", "script_json"]


def browser_data(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the browser's script reads: attempts, statements once, the colour scale.

    Args:
      samples: rows of samples.jsonl.

    Returns:
      `statements`; `samples` with `statement` as a place in it and `attempt` counted
      from 1 at the same theorem in an iteration; `scale`, the KL in nats that gets
      the full colour: the 98th percentile of all tokens.
    """
    statements: dict[str, int] = {}
    attempts: Counter[tuple[Any, ...]] = Counter()
    divergences: list[float] = []
    rows = []
    for sample in samples:
        place = tuple(sample[name] for name in _PLACE)
        attempts[place] += 1
        statement = statements.setdefault(sample["statement"], len(statements))
        row = {
            **{name: sample.get(name) for name in _COPIED},
            "status": sample["status"] or "judged",  # by another judge than Lean
            "attempt": attempts[place],
            "statement": statement,
            "messages": sample.get("messages") or [],
            "calls": sample.get("calls") or [],
        }
        if sample.get("tokens") and sample.get("kl"):
            row["tokens"] = sample["tokens"]
            row["kl"] = [
                None if value is None else round(value, 4) for value in sample["kl"]
            ]
            divergences += [value for value in row["kl"] if value is not None]
        rows.append(row)
    scale = float(np.quantile(divergences, 0.98)) if divergences else 0.0
    return {"statements": list(statements), "samples": rows, "scale": scale or 1.0}


_PLACE = ("arm", "step", "problem", "statement")
"""Where attempts are counted; theorems of one name are told apart."""
_COPIED = ("arm", "step", "problem", "proof", "feedback", "reward")


def script_json(value: Any) -> str:
    """JSON that cannot end or change the script element around it.

    `<`, `>` and `&` become escapes, so that no text of a proof reads as `</script>` or
    `<!--`, and so do the two line separators that older scripts cannot hold.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
