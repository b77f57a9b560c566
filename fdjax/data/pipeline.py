"""An endless, shuffled, resumable stream of problem batches (Grain)."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import grain

from fdjax.errors import ConfigError

__all__ = ["batches", "fingerprint"]

Item = TypeVar("Item")


def batches(
    items: Sequence[Item], *, batch_size: int, seed: int
) -> grain.DatasetIterator[list[Item]]:
    """Shuffled epochs of `items` in batches; `get_state`/`set_state` resume exactly.

    Every epoch has another order, and no item repeats inside an epoch.

    Raises:
      ConfigError: the batch is larger than the dataset.
    """
    if not 0 < batch_size <= len(items):
        raise ConfigError(
            f"batch_size must be between 1 and the {len(items)} items available, got "
            f"{batch_size}; lower it or provide more data."
        )
    dataset = (
        grain.MapDataset.source(list(range(len(items))))
        .seed(seed)
        .shuffle()
        .repeat()
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
