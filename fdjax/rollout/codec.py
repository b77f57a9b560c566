"""Groups of attempts as bytes, so that another process can have them bit for bit.

A group is a line that names the format, a digest of what follows, and, deflated, a JSON
text with all facts and behind it the bits of all arrays. The problem is not in it: who
reads the group has it.
"""

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from fdjax.data.pipeline import fingerprint
from fdjax.episodes import Episode, Turn
from fdjax.errors import DataError
from fdjax.records import Problem
from fdjax.rollout.facts import feedback_of, json_value, judgement_of, to_json
from fdjax.rollout.trajectory import Trajectory
from fdjax.tools import Observation

__all__ = ["decode_group", "encode_group"]

_FORMAT = b"fdjax attempts 2\n"
"""Raise its number when what is written changes."""
_DIGEST_BYTES = 16
_LENGTH_BYTES = 8
_FAST = 1
"""Level of zlib: more finds nothing in log-probabilities."""
_ARRAYS = ("tokens", "logprobs", "behaviour_logprobs", "entropy")
"""Fields of a turn."""


def encode_group(group: Sequence[Trajectory]) -> bytes:
    """All of a group but its problem; `decode_group` reads it back, bit for bit.

    Args:
      group: attempts at one problem.

    Raises:
      DataError: they are at several problems or none, or hold what is no JSON value,
        such as a tool's arguments that are not.
    """
    problems = {each.problem for each in group}
    if len(problems) != 1:
        raise DataError(
            f"expected attempts at one problem, got attempts at {len(problems)}: "
            "encode each group by itself"
        )
    (problem,) = problems
    arrays = _Arrays()
    facts = {"problem": fingerprint([problem]), "attempts": list(group)}
    text = to_json(facts, arrays.place)
    length = len(text).to_bytes(_LENGTH_BYTES, "little")
    body = zlib.compress(b"".join([length, text, *arrays.parts]), _FAST)
    return _FORMAT + _digest(body) + body


def decode_group(data: bytes, problem: Problem) -> list[Trajectory]:
    """The group that `encode_group` was given.

    Args:
      data: what it returned.
      problem: that the attempts are at.

    Raises:
      DataError: `data` is damaged, of another version, or at another problem.
    """
    if not data.startswith(_FORMAT):
        raise DataError(
            f"expected a group that begins with {_FORMAT!r}, got "
            f"{data[: len(_FORMAT)]!r}: another version or program wrote it; use the "
            "same fdjax for both"
        )
    start = len(_FORMAT) + _DIGEST_BYTES
    body = data[start:]
    if data[len(_FORMAT) : start] != _digest(body):
        raise DataError(
            f"expected a group as it was written, got {len(data):,} bytes that differ "
            "from it: encode and send it again"
        )
    try:
        content = zlib.decompress(body)
        end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
        facts = json.loads(content[_LENGTH_BYTES:end].decode("utf-8", "surrogatepass"))
        written, wanted = facts["problem"], fingerprint([problem])
        if written == wanted:
            bits = memoryview(content)[end:]
            return [_trajectory(one, problem, bits) for one in facts["attempts"]]
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise DataError(
            f"expected a group of attempts, got one that cannot be read ({error!r}): "
            "use the same fdjax for writing and reading"
        ) from error
    raise DataError(
        f"expected attempts at {problem.name} ({wanted}), got attempts at another "
        f"problem ({written}): decode a group with its own problem"
    )


class _Arrays:
    """Bits of the arrays that a JSON text refers to."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._size = 0

    def place(self, value: Any) -> Any:
        """What stands in JSON for a value that is none, as `json.dumps` asks it."""
        if isinstance(value, np.ndarray):
            return self._placed(value)
        if isinstance(value, Episode):
            # The problem would be the same in all attempts, and the reader has it.
            return {
                field.name: getattr(value, field.name)
                for field in fields(value)
                if field.name != "problem"
            }
        return json_value(value)

    def _placed(self, array: np.ndarray) -> dict[str, Any]:
        if array.dtype.kind not in "biuf":
            raise DataError(
                f"expected arrays of numbers in a turn, got {array.dtype}: convert it"
            )
        bits = array.tobytes()
        place = {"dtype": array.dtype.str, "shape": array.shape, "at": self._size}
        self.parts.append(bits)
        self._size += len(bits)
        return place


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_DIGEST_BYTES]


def _trajectory(
    values: dict[str, Any], problem: Problem, bits: memoryview
) -> Trajectory:
    episode = values["episode"]
    turns = tuple(_turn(turn, bits) for turn in episode["turns"])
    made: dict[str, Any] = {
        "episode": Episode(**episode | {"problem": problem, "turns": turns}),
        "judgement": judgement_of(values["judgement"]),
        "feedback": feedback_of(values["feedback"]),
    }
    return Trajectory(**values | made)


def _turn(values: dict[str, Any], bits: memoryview) -> Turn:
    made: dict[str, Any] = {
        name: None if values[name] is None else _array(values[name], bits)
        for name in _ARRAYS
    }
    made["observations"] = tuple(Observation(**one) for one in values["observations"])
    return Turn(**values | made)


def _array(place: dict[str, Any], bits: memoryview) -> np.ndarray:
    # A copy is aligned, can be written to, and keeps nothing else in memory.
    return np.ndarray(
        place["shape"], place["dtype"], buffer=bits, offset=place["at"]
    ).copy()
