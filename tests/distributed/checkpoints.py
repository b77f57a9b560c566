"""One of several processes that save a checkpoint, or read it."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fdjax.checkpoint import CheckpointStore, Retention
from fdjax.checkpoint.orbax_tree import OrbaxTree
from fdjax.errors import DamagedCheckpointError
from fdjax.sharding import initialize_distributed, make_mesh
from fdjax.train import CheckpointsConfig, TrainState
from fdjax.train.checkpoints import CheckpointClock
from fdjax.train.resume import restore

ORIGIN = {"run": "1f"}
LAYOUTS = {
    "by_row": PartitionSpec("fsdp"),
    "by_column": PartitionSpec(None, "fsdp"),
    "half": PartitionSpec(("data", "fsdp")),
    "whole": PartitionSpec(),
}


def values(step):
    """The parameters of a step, all of them."""
    rng = np.random.default_rng(step)
    arrays = {name: rng.normal(size=(16, 24)).astype(np.float32) for name in LAYOUTS}
    return arrays | {"half": arrays["half"].astype(jnp.bfloat16)}


def state(mesh, step):
    """The state of a step, spread over a mesh."""

    def spread(name, array):
        sharding = NamedSharding(mesh, LAYOUTS[name])
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

    everywhere = jax.jit(
        lambda: (jnp.int32(step), jax.random.key(step)),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )
    number, key = everywhere()
    return TrainState(
        params={name: spread(name, array) for name, array in values(step).items()},
        opt_state=(),
        teacher=None,
        step=number,
        key=key,
    )


def same_bits(got, step):
    """Whether the parts that this process has of a state are those of a step."""
    expected = values(step)
    parts = [
        np.asarray(shard.data).tobytes() == expected[name][shard.index].tobytes()
        for name, array in got.params.items()
        for shard in array.addressable_shards
    ]
    key = jax.random.key_data(jax.random.key(step))
    return all(parts) and np.array_equal(jax.random.key_data(got.key), key)


class Position:
    """A source that remembers what it was told."""

    state = None

    def next(self, state, timer):
        raise AssertionError("nothing is trained")

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = state


def save(mesh, folder):
    with CheckpointStore(folder, Retention(newest=None)) as store:
        for step in (1, 2):
            store.save(step, state(mesh, step), ORIGIN | {"source": {"next": step}})
    return {}


def read(mesh, folder):
    """The step that training goes on from, and whether it is what was saved."""
    source = Position()
    with CheckpointStore(folder, Retention(newest=None)) as store:
        done, found, _ = restore(store, state(mesh, 9), source, ORIGIN, steps=9)
    return {"done": done, "same": same_bits(found, done), "source": source.state}


def read_where_one_sees_damage(mesh, folder):
    """As `read`; the last process cannot read a part of the newest checkpoint."""
    load = OrbaxTree.load

    def damaged(self, keys, *arguments):
        last = jax.process_index() == jax.process_count() - 1
        if last and self.folder.parent.name == "2" and "by_row" in keys:
            raise DamagedCheckpointError("half is missing")
        return load(self, keys, *arguments)

    OrbaxTree.load = damaged
    return read(mesh, folder)


def due():
    """Whether a checkpoint is due, by the clock of the first process or the others."""
    answers = []
    for first in (True, False):
        late = (jax.process_index() == 0) == first
        minutes = 1e-9 if late else 1e9
        answers.append(CheckpointClock(CheckpointsConfig(minutes=minutes)).due(1))
    return answers


if __name__ == "__main__":
    port, count, index, folder, what = sys.argv[1:]
    initialize_distributed(
        coordinator_address=f"127.0.0.1:{port}",
        num_processes=int(count),
        process_id=int(index),
    )
    mesh, path = make_mesh(data=2, fsdp=4), Path(folder)
    result = {
        "save": save,
        "read": read,
        "read_where_one_sees_damage": read_where_one_sees_damage,
    }[what](mesh, path / "checkpoints")
    (path / f"{index}.json").write_text(json.dumps(result | {"due": due()}))
