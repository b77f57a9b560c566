"""An endless, shuffled, resumable stream of problem batches (Grain)."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import grain

from fdjax.ranges import SEED, Whole, require

__all__ = ["BatchStream", "batches", "fingerprint"]

Item = TypeVar("Item")
Drawn = TypeVar("Drawn", covariant=True)

_EPOCHS = 2**31
"""As good as endless. Of a stream without end, Grain cannot count batches of one."""


@runtime_checkable
class BatchStream(Protocol[Drawn]):
    """Batches without end that go on where their state was taken."""

    def __next__(self) -> Sequence[Drawn]:
        """The next batch."""
        ...

    def get_state(self) -> Any:
        """The position, as JSON holds it."""
        ...

    def set_state(self, state: Any) -> None:
        """Continues from a position that `get_state` gave."""
        ...


def batches(
    items: Sequence[Item], *, batch_size: int, seed: int
) -> grain.DatasetIterator[list[Item]]:
    """Shuffled epochs of `items` in batches; `get_state`/`set_state` resume exactly.

    Every epoch has another order, and no item repeats inside an epoch.

    Raises:
      ConfigError: the batch is empty or larger than the dataset, or the seed is out of
        range.
    """
    require("seed", seed, SEED)
    require(
        f"batch_size of {len(items)} items",
        batch_size,
        Whole(1, len(items)),
        remedy="lower it or provide more data",
    )
    dataset = (
        grain.MapDataset.source(list(range(len(items))))
        .seed(seed)
        .shuffle()
        .repeat(_EPOCHS)
        .batch(batch_size, batch_fn=lambda indices: [items[i] for i in indices])
    )
    # No prefetch threads: picking from memory costs less than handing over.
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=0)))


def fingerprint(items: Iterable[Any]) -> str:
    """Digest of rows and their order: 16 hexadecimal digits, the same on every machine.

    Args:
      items: JSON values and dataclasses of such.
    """
    digest, encoder = hashlib.sha256(), json.JSONEncoder(sort_keys=True, default=vars)
    for item in items:
        digest.update(encoder.encode(item).encode() + b"\n")
    return digest.hexdigest()[:16]
