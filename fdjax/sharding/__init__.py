"""Device meshes and the table that lays arrays out on them."""

from fdjax.sharding.mesh import initialize_distributed, make_mesh
from fdjax.sharding.processes import (
    gather,
    on_first,
    on_first_slowly,
    on_host,
    require_alike,
    share,
    wait_for_all,
)
from fdjax.sharding.rules import (
    DEFAULT_RULES,
    Rules,
    batch_parts,
    batch_sharding,
    check_rows,
    init_sharded,
    place_alike,
    shard_batch,
    shardings,
)

__all__ = [
    "DEFAULT_RULES",
    "Rules",
    "batch_parts",
    "batch_sharding",
    "check_rows",
    "gather",
    "init_sharded",
    "initialize_distributed",
    "make_mesh",
    "on_first",
    "on_first_slowly",
    "on_host",
    "place_alike",
    "require_alike",
    "shard_batch",
    "shardings",
    "share",
    "wait_for_all",
]
