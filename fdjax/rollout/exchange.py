"""Groups of all processes: each made its own, and all get all of them."""

import io
from collections.abc import Sequence

import jax

from fdjax.records import Problem
from fdjax.rollout.codec import decode_group, encode_group
from fdjax.rollout.trajectory import Trajectory
from fdjax.sharding import gather

__all__ = ["exchange"]

_SIZE = 8


def exchange(
    groups: Sequence[list[Trajectory]], problems: Sequence[Problem]
) -> list[list[Trajectory]]:
    """The groups of all processes, in the order of the problems; a collective.

    Args:
      groups: those of this process (`fdjax.sharding.share`).
      problems: of all.
    """
    if jax.process_count() == 1:
        return list(groups)
    own = [encode_group(group) for group in groups]
    fact = b"".join(len(one).to_bytes(_SIZE, "little") + one for one in own)
    everyones = (one for said in gather(fact) for one in _parts(said))
    return [
        decode_group(one, problem)
        for one, problem in zip(everyones, problems, strict=True)
    ]


def _parts(said: bytes) -> list[bytes]:
    """The groups that one process told of."""
    stream, found = io.BytesIO(said), []
    while size := stream.read(_SIZE):
        found.append(stream.read(int.from_bytes(size, "little")))
    return found
