"""Orbax checkpoints of a device pytree beside the host's own state."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from fdjax.checkpoint.agreement import anywhere, damage_is_shared
from fdjax.checkpoint.orbax_tree import CHUNK_BYTES, STATE, OrbaxTree
from fdjax.checkpoint.record import make_record, read_record
from fdjax.checkpoint.retention import Retention
from fdjax.checkpoint.steps import HOST, clear_remains, delete_step, set_aside
from fdjax.checkpoint.sums import bit_sums
from fdjax.errors import CheckpointError, DamagedCheckpointError, StoreError
from fdjax.objects import Place, open_store, remote, store_failures
from fdjax.sharding import on_first_slowly

__all__ = ["CheckpointStore"]

_SHOWN = 3
"""Arrays named in a message."""


class CheckpointStore:
    """A folder of numbered checkpoints; each is complete or absent.

    A checkpoint holds `state`, a pytree of arrays (typed PRNG keys included) with any
    sharding, and `host`, a JSON-like dict: data iterator, counters. The sums of the
    arrays' bits are saved with them and compared after reading.

    What is set aside stays beside the checkpoints, renamed to `<step>.set-aside`.

    In an object store, where nothing is renamed, a checkpoint is complete once Orbax's
    mark is there. Methods raise `StoreError` where the store does not answer.
    """

    def __init__(self, directory: Place, retention: Retention | None = None):
        """Opens or creates `directory`.

        A folder named like a step that holds no part of a checkpoint is none; it is set
        aside. One that lost a part is damaged.

        Args:
          directory: of the checkpoints; an address such as `gs://bucket/run` as
            `fdjax.objects.place` has it.
          retention: which of them stay; by default the two newest.

        Raises:
          ConfigError: `directory` is an address, and cannot be written.
        """
        if remote(directory):
            open_store(directory)
        self.directory = directory if remote(directory) else directory.absolute()
        self._retention = retention or Retention()
        self._held: set[int] = set()
        self._values: dict[int, float | None] = {}
        on_first_slowly(lambda: clear_remains(self.directory))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Policy(self._kept),
            # Beside a store's own names it would clean up in the background.
            cleanup_tmp_directories=not remote(self.directory),
        )
        # Loggers hold a filter once, however many stores are open.
        logging.getLogger("absl").addFilter(_raised_anyway)
        self._manager = ocp.CheckpointManager(
            self.directory, options=options, item_names=(STATE, HOST)
        )
        if self._retention.best:
            self._values = {step: self._value(step) for step in self.steps}

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, if there is one."""
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        state: Any,
        host: dict[str, Any],
        *,
        values: Mapping[str, float] | None = None,
    ) -> None:
        """Writes in the background; a step that exists already is left as it is.

        It waits for the devices to have computed the state and for the write before it,
        and copies the process's own parts to the host. Checkpoints that do not stay are
        deleted once this one is complete.

        Args:
          step: of the checkpoint.
          state: arrays, which may be donated as soon as this returns.
          host: JSON-like; the same on all processes.
          values: of metrics, among them that of the retention; the same on all
            processes.

        Raises:
          CheckpointError: this or the write before it failed, for instance because the
            disk is full; complete checkpoints stay as they are.
        """
        if step in self._manager.all_steps():
            return
        data = jax.tree.map(_to_data, state)
        record = make_record(host, bit_sums(data), values or {})
        self._values[step] = record["values"].get(self._retention.metric)
        with self._writing():
            self._require_room(data)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(data, jax.tree.map(_chunks, data)),
                    host=ocp.args.JsonSave(record),
                ),
            )

    def hold(self, step: int) -> Place:
        """Keeps the checkpoint of a step until `release`; gives its folder.

        On several processes process 0 holds it: it is the one that deletes.
        """
        self._held.add(step)
        return self.directory / str(step)

    def release(self, step: int) -> None:
        """Lets a checkpoint go: the next `save` deletes it if nothing else keeps it."""
        self._held.discard(step)

    def host(self, step: int) -> dict[str, Any]:
        """The host's part of a checkpoint; reads no array.

        Raises:
          CheckpointError: there is no such checkpoint.
          DamagedCheckpointError: it cannot be read.
        """
        return self._record(self._existing(step))["host"]

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Reads a checkpoint into the shapes, dtypes and shardings of `like`.

        On several processes each reads its own parts, and damage that one of them meets
        is raised on all.

        Args:
          like: a pytree of arrays or `jax.ShapeDtypeStruct`s with shardings; PRNG keys
            are arrays.
          step: which checkpoint; the newest by default.

        Raises:
          CheckpointError: there is no such checkpoint, or it does not fit `like`.
          DamagedCheckpointError: its files are missing or are not what was written.
        """
        step = self._existing(self.latest_step if step is None else step)
        record = self._record(step)
        wanted = jax.tree.map(_abstract_data, like)
        with self._damage(step):
            with damage_is_shared():
                data = _read(self.directory / str(step) / STATE, wanted)
            found = bit_sums(data)
            flawed = [name for name in found if found[name] != record["sums"].get(name)]
            if flawed:
                raise DamagedCheckpointError(
                    "Expected the arrays that were written, got other bits in "
                    f"{', '.join(flawed[:_SHOWN])}."
                )
        return jax.tree.map(_from_data, like, data), record["host"]

    def set_aside_after(self, step: int) -> None:
        """Moves the checkpoints that are later than a step out of the way."""
        self.wait()
        for later in self.steps:
            if later > step:
                folder = self.directory / str(later)
                set_aside(folder, f"training goes on from step {step}")
        self._manager.reload()

    def delete_others(self) -> None:
        """Deletes the checkpoints that do not stay, as `save` does.

        A process that was killed before it deleted them leaves them, whole or in part;
        so does the last save, of one that was held meanwhile.

        Raises:
          CheckpointError: the disk refuses.
          StoreError: the object store refuses, or does not answer.
        """
        self.wait()
        with self._writing():
            on_first_slowly(self._delete_others)
        self._manager.reload()

    def wait(self) -> None:
        """Blocks until what was saved is on disk; raises as `save` does."""
        with self._writing():
            self._manager.wait_until_finished()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        with self._writing():
            self._manager.close()

    def _delete_others(self) -> None:
        for step in set(self.steps) - self._kept(self.steps):
            delete_step(self.directory / str(step))

    def _kept(self, steps: Sequence[int]) -> set[int]:
        """Which of these checkpoints stay."""
        values = {step: self._values.get(step) for step in steps}
        return self._retention.kept(values) | self._held

    def _value(self, step: int) -> float | None:
        """By which a checkpoint is ranked, if it can be read."""
        try:
            values = read_record(self.directory / str(step))["values"]
        except CheckpointError:
            return None
        return values.get(self._retention.metric)

    def _require_room(self, data: Any) -> None:
        """Refuses before Orbax begins what the disk cannot hold."""
        if remote(self.directory):
            return
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(data))
        free = shutil.disk_usage(self.directory).free
        # One that failed alone would leave the others waiting.
        if anywhere(free < needed):
            raise OSError(f"no room for {needed:,} bytes, {free:,} are free")

    def _existing(self, step: int | None) -> int:
        if step is None or step not in self.steps:
            raise CheckpointError(
                f"Expected a checkpoint at {self.directory}"
                + (f", step {step}" if step is not None else "")
                + f", got steps {self.steps}; start without --resume."
            )
        return step

    def _record(self, step: int) -> dict[str, Any]:
        """What the host saved, and the sums of the arrays."""
        self.wait()
        with self._damage(step), damage_is_shared():
            return read_record(self.directory / str(step))

    @contextmanager
    def _damage(self, step: int) -> Iterator[None]:
        """Says of damage which checkpoint it is in."""
        try:
            yield
        except DamagedCheckpointError as error:
            raise DamagedCheckpointError(
                f"The checkpoint {self.directory}/{step} is damaged. {error}"
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        failures = store_failures() if remote(self.directory) else ()
        try:
            yield
        except (ValueError, OSError, *failures) as error:
            if remote(self.directory):
                raise StoreError(
                    f"Expected to write a checkpoint in {self.directory}, got: {error}."
                    " The same command with --resume goes on from the newest that is "
                    "complete."
                ) from error
            raise CheckpointError(
                f"Expected to write a checkpoint in {self.directory}, got: {error}. "
                "Make room and resume; the checkpoints before it are complete."
            ) from error


class _Policy:
    """Which checkpoints Orbax deletes: those that are not kept."""

    def __init__(self, kept: Callable[[Sequence[int]], set[int]]):
        self._kept = kept

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: object
    ) -> Sequence[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = self._kept(steps)
        return [step in kept for step in steps]


def _raised_anyway(record: logging.LogRecord) -> bool:
    """Keeps out errors that Orbax both logs, at each level it passes, and raises."""
    return record.levelno < logging.ERROR or "orbax" not in record.pathname


def _read(folder: Place, wanted: Any) -> Any:
    """The arrays of a checkpoint; what was cached of their files goes with the call."""
    tree = OrbaxTree(folder)
    _check_fit(tree, wanted)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: tree.load(_keys(path), leaf.sharding, leaf.dtype), wanted
    )


def _check_fit(tree: OrbaxTree, wanted: Any) -> None:
    """Makes sure that a checkpoint holds the wanted arrays and no others."""
    expected = {
        ".".join(_keys(path)): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_flatten_with_path(wanted)[0]
    }
    got = {name: tree.describe(tuple(name.split("."))) for name in tree.names}
    differences = [
        f"{name}: expected {expected.get(name, 'none')}, got {got.get(name, 'none')}"
        for name in sorted(expected | got)
        if expected.get(name) != got.get(name)
    ]
    if differences:
        more = len(differences) - _SHOWN
        raise CheckpointError(
            f"The checkpoint {tree.folder.parent} does not fit this run: "
            + "; ".join(differences[:_SHOWN])
            + (f"; and {more} more arrays" if more > 0 else "")
            + ". Use the configuration that it was written with, or start a new run."
        )


def _keys(path: tuple[Any, ...]) -> tuple[str, ...]:
    """Names of an array's place in a tree, as Orbax spells them."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _chunks(leaf: Any) -> ocp.SaveArgs:
    """Keeps the layers of a stacked matrix apart, so that one can be read alone."""
    layers = (0,) if jnp.ndim(leaf) > 2 else ()
    return ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES, shard_axes=layers)


def _abstract_data(leaf: Any) -> Any:
    if _is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, leaf)
        return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=leaf.sharding)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _from_data(like: Any, leaf: Any) -> Any:
    if _is_key(like):
        return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(like))
    return leaf
