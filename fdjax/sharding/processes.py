"""One program on several processes: facts are gathered, and then all decide alike.

Every function here but `share` is a collective: all processes call it at the same
place, in the thread that drives their devices. On one process none of them does
anything.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import count
from typing import Any
from zlib import crc32

import jax
import numpy as np
from jax.experimental import multihost_utils

from fdjax.encoding import decode, encode
from fdjax.errors import ConfigError, ExchangeError, PeerError

__all__ = [
    "gather",
    "on_first",
    "on_first_slowly",
    "on_host",
    "require_alike",
    "share",
    "wait_for_all",
]

_HEAD = 256
"""Bytes that travel with the size: most facts need no second collective."""
_SIZE = 8
_CHUNK = 1 << 22
"""Bytes of each process in one collective; devices hold all processes' at once."""
_SUM = 4
"""Bytes of the sum behind them."""
_EXCHANGES = count()
"""Numbers the collectives: a sum begins with it, so another one's bytes are found."""

_POLL_S = 1.0
"""Seconds that work of one process is waited for at once."""


def share(count: int) -> range:
    """Which of `count` things this process works on: a contiguous part, perhaps none.

    Parts differ by one at most.
    """
    index, processes = jax.process_index(), jax.process_count()
    return range(count * index // processes, count * (index + 1) // processes)


def gather(fact: bytes) -> list[bytes]:
    """What each process knows, in their order.

    Raises:
      ExchangeError: other bytes came than a process sent.
    """
    if jax.process_count() == 1:
        return [fact]
    size = len(fact).to_bytes(_SIZE, "little")
    heads = _gathered(size + fact[: _HEAD - _SIZE], _HEAD)
    sizes = [int.from_bytes(head[:_SIZE], "little") for head in heads]
    facts = [
        head[_SIZE : _SIZE + length] for head, length in zip(heads, sizes, strict=True)
    ]
    for start in range(_HEAD - _SIZE, max(sizes), _CHUNK):
        # A power of two bounds the shapes that are compiled.
        width = min(_CHUNK, 1 << (max(sizes) - start - 1).bit_length())
        more = _gathered(fact[start : start + width], width)
        for index, (piece, length) in enumerate(zip(more, sizes, strict=True)):
            facts[index] += piece[: max(0, length - start)]
    return facts


def _gathered(data: bytes, width: int) -> list[bytes]:
    """Up to `width` bytes of each process, padded to them."""
    number = next(_EXCHANGES)
    padded = data.ljust(width, b"\0")
    sent = padded + crc32(padded, number).to_bytes(_SUM, "little")
    found = []
    rows = multihost_utils.process_allgather(np.frombuffer(sent, np.uint8))
    for process, row in enumerate(map(bytes, rows)):
        part = row[:width]
        if crc32(part, number).to_bytes(_SUM, "little") != row[width:]:
            raise ExchangeError(
                f"Expected the {width} bytes that process {process} sent in exchange "
                f"{number}, got others: start all processes again with --resume, and "
                "look at the network if it happens again."
            )
        found.append(part)
    return found


def wait_for_all(work: Future[Any]) -> None:
    """Waits until the work of each process is done, of threads and for minutes.

    Collectives of CPUs give up after half a minute, and no signal is heard in one; so
    processes ask each other again and again.

    Args:
      work: of this process.
    """
    if jax.process_count() == 1:
        wait([work])
        return
    while b"0" in gather(b"1" if wait([work], timeout=_POLL_S).done else b"0"):
        pass


def on_host(tree: Any) -> Any:
    """NumPy arrays of all of each device array, wherever its shards are."""
    return jax.tree.map(_whole, tree)


def _whole(array: jax.Array) -> np.ndarray:
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(jax.device_get(array))
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def require_alike(parts: Mapping[str, str]) -> None:
    """Makes sure that all processes have the same.

    Args:
      parts: name to a digest of what this process has.

    Raises:
      ConfigError: they differ; on all processes.
    """
    everyones = [decode(fact) for fact in gather(encode(dict(parts)))]
    differ = [
        f"{name} on process {process}"
        for process, found in enumerate(everyones)
        for name in parts
        if found[name] != everyones[0][name]
    ]
    if differ:
        raise ConfigError(
            "expected the same on all processes, got others than process 0 has: "
            f"{', '.join(differ)}; give all hosts the same files and flags"
        )


def on_first(work: Callable[[], Any]) -> Any:
    """What `work` gives on the first process, a JSON value; others do not call it.

    Raises:
      PeerError: it failed there. On the first process its own error is raised.
    """
    if jax.process_count() == 1:
        return work()
    failed: BaseException | None = None
    said: dict[str, Any] = {}
    if jax.process_index() == 0:
        try:
            said = {"value": work()}
        # Whatever it is, the others must not wait for a value.
        except BaseException as error:  # noqa: BLE001
            failed, said = error, {"error": f"{type(error).__name__}: {error}"}
    answer = decode(gather(encode(said))[0])
    if failed is not None:
        raise failed
    if "error" in answer:
        raise PeerError(f"Process 0 failed: {answer['error']}")
    return answer["value"]


def on_first_slowly(work: Callable[[], Any]) -> Any:
    """As `on_first`, for work that may take long (`wait_for_all`), in a thread.

    Raises:
      PeerError: as `on_first`.
    """
    if jax.process_count() == 1:
        return work()
    with ThreadPoolExecutor(1) as pool:
        pending: Future[Any] = Future()
        if jax.process_index() == 0:
            pending = pool.submit(work)
        else:
            pending.set_result(None)
        wait_for_all(pending)
        return on_first(pending.result)
