"""An endless, shuffled, resumable stream of problem batches (Grain)."""

from collections.abc import Sequence
from typing import TypeVar

import grain

from fdjax.errors import ConfigError
from fdjax.ranges import SEED, Whole, require

__all__ = ["batches"]

Item = TypeVar("Item")


def batches(
    items: Sequence[Item], *, batch_size: int, seed: int
) -> grain.DatasetIterator[list[Item]]:
    """Shuffled epochs of `items` in batches; `get_state`/`set_state` resume exactly.

    Every epoch has another order, and no item repeats inside an epoch.

    Raises:
      ConfigError: the batch is larger than the dataset.
    """
    require("seed", seed, SEED)
    require("batch_size", batch_size, Whole(1))
    if batch_size > len(items):
        raise ConfigError(
            f"expected batch_size of at most the {len(items)} items available, got "
            f"{batch_size}: lower it or provide more data"
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
