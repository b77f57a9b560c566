"""Values as JSON text: what stands for NaN, and for text that is not Unicode.

JSON has no NaN and no infinities. They are written as null, also where another program
would write `NaN`, and null is read back as None: `as_float` makes it NaN again where a
float is wanted.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

__all__ = ["as_float", "decode", "encode", "spellings"]


def encode(value: Any, *, indent: int | None = None) -> bytes:
    r"""JSON text in UTF-8 that ends in a line feed, its only one without `indent`.

    A value with lone surrogates, which UTF-8 cannot hold, is written in ASCII.

    >>> encode({"loss": float("nan"), "text": "∀"}).decode()
    '{"loss": null, "text": "∀"}\n'

    Args:
      value: of mappings, lists, tuples, texts, numbers, booleans and None.
      indent: blanks for each level, each entry on a line of its own.
    """
    return next(spellings(value, indent=indent))


def spellings(value: Any, *, indent: int | None = None) -> Iterator[bytes]:
    """How `encode` may write a value: in UTF-8 if that can hold it, and in ASCII.

    Of an object that goes on, any of them may be the beginning.
    """
    value = _finite(value)
    for ascii_only in (False, True):
        text = json.dumps(
            value, indent=indent, ensure_ascii=ascii_only, allow_nan=False
        )
        with suppress(UnicodeEncodeError):
            yield f"{text}\n".encode()


def decode(text: bytes | str, **hooks: Any) -> Any:
    """The value of a JSON text; None for NaN and infinities that others wrote.

    >>> decode('{"loss": NaN}')
    {'loss': None}

    Args:
      text: JSON, in UTF-8 where it is bytes.
      hooks: of `json.loads`, for other values than Python's own.

    Raises:
      ValueError: it is no JSON text, or no UTF-8.
      RecursionError: its brackets are nested deeper than can be read.
    """
    return json.loads(text, parse_constant=lambda _: None, **hooks)


def as_float(value: float | None) -> float:
    """A measured number as a float; NaN where none was measured."""
    return math.nan if value is None else float(value)


def _finite(value: Any) -> Any:
    """The same value with None in place of floats that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
