"""What was found out about attempts as JSON text, and back without loss."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from fdjax.errors import DataError
from fdjax.feedback import Feedback, Kind, Leak, Usage
from fdjax.judge import Judgement
from fdjax.lean import Status, Verdict

__all__ = ["feedback_of", "json_value", "judgement_of", "to_json"]


def to_json(facts: Any, value_of: Callable[[Any], Any] | None = None) -> bytes:
    r"""JSON text on one line, without loss: NaN is NaN, half a character stays one.

    >>> to_json(Judgement(reward=0.5, reason="\ud800"))[:32]
    b'{"reward": 0.5, "passed": false,'

    Args:
      facts: JSON values, dataclasses and numbers of NumPy.
      value_of: what stands for anything else; `json_value` by default.
    """
    # Two halves of a character that stand side by side stay two.
    text = json.dumps(facts, default=value_of or json_value, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def json_value(value: Any) -> Any:
    """What stands in JSON for a value that is none, as `json.dumps` asks for it.

    Raises:
      DataError: nothing can.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Status):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    raise DataError(
        f"expected JSON values in an attempt, got {value!r} of type "
        f"{type(value).__name__}: give texts, numbers, lists or dicts"
    )


def judgement_of(values: Mapping[str, Any]) -> Judgement:
    """The judgement that was written.

    Raises:
      KeyError, TypeError, ValueError: `values` is something else.
    """
    verdict = values["verdict"]
    made: dict[str, Any] = {
        "verdict": None if verdict is None else Verdict.from_dict(verdict)
    }
    return Judgement(**{**values, **made})


def feedback_of(values: Mapping[str, Any]) -> Feedback:
    """The feedback that was written.

    Raises:
      KeyError, TypeError, ValueError: `values` is something else.
    """
    kind, leak = values["kind"], values["leak"]
    made: dict[str, Any] = {
        "parts": tuple(values["parts"]),
        "kind": None if kind is None else Kind(kind),
        "usage": Usage(**values["usage"]),
        "leak": None if leak is None else Leak(**leak),
    }
    return Feedback(**{**values, **made})
