"""Orbax checkpoints of a device pytree beside the host's own state."""

import logging
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from fdjax.checkpoint.orbax_tree import CHUNK_BYTES, STATE, OrbaxTree
from fdjax.checkpoint.sums import bit_sums
from fdjax.data.pipeline import fingerprint
from fdjax.errors import CheckpointError, DamagedCheckpointError

__all__ = ["CheckpointStore", "checkpoint_steps"]

_ITEMS = (STATE, "host")
"""Folders of a checkpoint."""

_SHOWN = 3
"""Arrays named in a message."""

_logger = logging.getLogger(__name__)


def checkpoint_steps(directory: Path) -> list[int]:
    """Steps of the checkpoints in a folder, damaged ones too, oldest first."""
    return sorted(
        int(folder.name) for folder in _numbered(directory) if _is_checkpoint(folder)
    )


class CheckpointStore:
    """A folder of numbered checkpoints; each is complete or absent.

    A checkpoint holds `state`, a pytree of arrays (typed PRNG keys included) with any
    sharding, and `host`, a JSON-like dict: data iterator, counters. The sums of the
    arrays' bits are saved with them and compared after reading.

    What is set aside stays beside the checkpoints, renamed to `<step>.set-aside`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int | None = 2,
        keep_steps: Collection[int] = (),
    ):
        """Opens or creates `directory`; the `keep` newest checkpoints stay.

        Those of `keep_steps` stay too. A folder named like a step that holds no part of
        a checkpoint is none; it is set aside. One that lost a part is damaged.
        """
        self.directory = directory.absolute()
        for folder in _numbered(self.directory):
            if not _is_checkpoint(folder):
                _set_aside(folder, f"it holds none of {', '.join(_ITEMS)}")
        policies = ocp.checkpoint_managers.preservation_policy
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(
                [policies.LatestN(keep), policies.CustomSteps(tuple(keep_steps))]
            ),
            cleanup_tmp_directories=True,
        )
        # Loggers hold a filter once, however many stores are open.
        logging.getLogger("absl").addFilter(_raised_anyway)
        self._manager = ocp.CheckpointManager(
            self.directory, options=options, item_names=_ITEMS
        )

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, if there is one."""
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, host: dict[str, Any]) -> None:
        """Writes in the background; a step that exists already is left as it is.

        Raises:
          CheckpointError: this or the write before it failed, for instance because the
            disk is full; complete checkpoints stay as they are.
        """
        if step in self._manager.all_steps():
            return
        data = jax.tree.map(_to_data, state)
        sums = bit_sums(data)
        digest = fingerprint([host, sums])
        with self._writing():
            self._require_room(data)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(data, jax.tree.map(_chunks, data)),
                    host=ocp.args.JsonSave(
                        {"host": host, "sums": sums, "digest": digest}
                    ),
                ),
            )

    def host(self, step: int) -> dict[str, Any]:
        """The host's part of a checkpoint; reads no array.

        Raises:
          CheckpointError: there is no such checkpoint.
          DamagedCheckpointError: it cannot be read.
        """
        return self._record(self._existing(step))["host"]

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Reads a checkpoint into the shapes, dtypes and shardings of `like`.

        Args:
          like: a pytree of arrays or `jax.ShapeDtypeStruct`s with shardings.
          step: which checkpoint; the newest by default.

        Raises:
          CheckpointError: there is no such checkpoint, or it does not fit `like`.
          DamagedCheckpointError: its files are missing or are not what was written.
        """
        step = self._existing(self.latest_step if step is None else step)
        record = self._record(step)
        wanted = jax.tree.map(_abstract_data, like)
        with self._damage(step):
            tree = OrbaxTree(self.directory / str(step) / STATE)
            _check_fit(tree, wanted)
            data = jax.tree_util.tree_map_with_path(
                lambda path, leaf: tree.load(_keys(path), leaf.sharding, leaf.dtype),
                wanted,
            )
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
                _set_aside(folder, f"training goes on from step {step}")
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

    def _require_room(self, data: Any) -> None:
        """Refuses before Orbax begins what the disk cannot hold."""
        # On several processes one that failed would leave the others waiting.
        if jax.process_count() > 1:
            return
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(data))
        free = shutil.disk_usage(self.directory).free
        if free < needed:
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
        with self._damage(step):
            return self._read_record(step)

    def _read_record(self, step: int) -> dict[str, Any]:
        try:
            restored = self._manager.restore(
                step, args=ocp.args.Composite(host=ocp.args.JsonRestore())
            )
            record = dict(restored["host"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise DamagedCheckpointError(
                f"Expected a JSON object in {step}/host, got {error!r}."
            ) from error
        if "digest" not in record:
            raise CheckpointError(
                f"Expected host, sums and digest in {self.directory}/{step}/host, got "
                f"{sorted(record)}, as an older fdjax wrote; start a new run."
            )
        content = [record.get("host"), record.get("sums")]
        if record["digest"] != fingerprint(content):
            raise DamagedCheckpointError(
                f"Expected what was written in {step}/host, got something else."
            )
        return record

    def _opens(self, step: int) -> bool:
        """Whether all parts of a checkpoint are there; reads no array."""
        try:
            self._read_record(step)
            tree = OrbaxTree(self.directory / str(step) / STATE)
            for name in tree.names:
                tree.describe(tuple(name.split(".")))
        except CheckpointError:
            return False
        return True

    @contextmanager
    def _damage(self, step: int) -> Iterator[None]:
        """Says of a damaged checkpoint what is left."""
        try:
            yield
        except DamagedCheckpointError as error:
            others = [one for one in self.steps if one != step and self._opens(one)]
            raise DamagedCheckpointError(
                f"The checkpoint {self.directory}/{step} is damaged. {error} Steps "
                f"beside it whose files open: {others or 'none'}. resume='whole' (on "
                "the command line --resume whole) goes back to the newest that can be "
                "read, or to the beginning, and sets later ones aside."
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError) as error:
            raise CheckpointError(
                f"Expected to write a checkpoint in {self.directory}, got: {error}. "
                "Make room and resume; the checkpoints before it are complete."
            ) from error


def _raised_anyway(record: logging.LogRecord) -> bool:
    """Keeps out errors that Orbax both logs, at each level it passes, and raises."""
    return record.levelno < logging.ERROR or "orbax" not in record.pathname


def _numbered(directory: Path) -> list[Path]:
    """What is named like a step."""
    if not directory.is_dir():
        return []
    return [
        path
        for path in directory.iterdir()
        if path.name.isdecimal() and path.name == str(int(path.name))
    ]


def _is_checkpoint(folder: Path) -> bool:
    """Whether it holds any part of one; another part may be lost."""
    return any((folder / item).is_dir() for item in _ITEMS)


def _set_aside(folder: Path, reason: str) -> None:
    # One process moves for all.
    if jax.process_index() != 0:
        return
    target, tries = folder.with_name(f"{folder.name}.set-aside"), 1
    while target.exists():
        tries += 1
        target = folder.with_name(f"{folder.name}.set-aside-{tries}")
    folder.rename(target)
    _logger.warning("Moved %s to %s: %s.", folder, target.name, reason)


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
