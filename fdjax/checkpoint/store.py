"""Orbax checkpoints of a device pytree beside the host's own state."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from fdjax.checkpoint.orbax_tree import CHUNK_BYTES
from fdjax.errors import CheckpointError

__all__ = ["CheckpointStore"]


class CheckpointStore:
    """A folder of numbered checkpoints; each is complete or absent.

    A checkpoint holds `state`, a pytree of arrays (typed PRNG keys included) with any
    sharding, and `host`, a JSON-like dict: data iterator, counters.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int | None = 2,
        keep_steps: Collection[int] = (),
    ):
        """Opens or creates `directory`; the `keep` newest checkpoints stay.

        Those of `keep_steps` stay too.
        """
        self.directory = directory.absolute()
        policies = ocp.checkpoint_managers.preservation_policy
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(
                [policies.LatestN(keep), policies.CustomSteps(tuple(keep_steps))]
            ),
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(
            self.directory, options=options, item_names=("state", "host")
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
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(data, jax.tree.map(_chunks, data)),
                    host=ocp.args.JsonSave(host),
                ),
            )

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Reads a checkpoint into the shapes, dtypes and shardings of `like`.

        Args:
          like: a pytree of arrays or `jax.ShapeDtypeStruct`s with shardings.
          step: which checkpoint; the newest by default.

        Raises:
          CheckpointError: there is no such checkpoint, or it does not fit `like`.
        """
        self.wait()
        step = self.latest_step if step is None else step
        if step is None or step not in self._manager.all_steps():
            raise CheckpointError(
                f"Expected a checkpoint at {self.directory}"
                + (f", step {step}" if step is not None else "")
                + f", got steps {self.steps}; start without --resume."
            )
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(jax.tree.map(_abstract_data, like)),
                    host=ocp.args.JsonRestore(),
                ),
            )
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise CheckpointError(
                f"The checkpoint {self.directory}/{step} does not fit this run "
                f"({error}); use the configuration that it was written with, or start "
                "a new run."
            ) from error
        return jax.tree.map(_from_data, like, restored["state"]), restored["host"]

    def wait(self) -> None:
        """Blocks until what was saved is on disk; raises as `save` does."""
        with self._writing():
            self._manager.wait_until_finished()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._writing():
            self._manager.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError) as error:
            raise CheckpointError(
                f"Expected to write a checkpoint in {self.directory}, got: {error}. "
                "Make room and resume; the checkpoints before it are complete."
            ) from error


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
