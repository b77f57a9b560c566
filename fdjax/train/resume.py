"""Where a phase goes on: which checkpoint, and whether it is one of this run at all."""

import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fdjax.checkpoint import CheckpointStore
from fdjax.checkpoint.sums import bit_sums
from fdjax.data.pipeline import fingerprint
from fdjax.errors import CheckpointError, DamagedCheckpointError
from fdjax.model.lora import Adapter
from fdjax.train.sources import Source
from fdjax.train.state import TrainState

__all__ = ["base_fingerprint", "check_origin", "restore"]

_logger = logging.getLogger(__name__)


def restore(
    store: CheckpointStore,
    state: TrainState,
    source: Source,
    origin: dict[str, Any],
    *,
    base: str | None = None,
    steps: int,
    resume: int | None = None,
) -> tuple[int, TrainState, dict[str, Any]]:
    """Reads the checkpoint from which a phase goes on, and puts its source there.

    A damaged one is passed over for the one before, and the log says so. Whose it is,
    and of which data, is checked before its arrays are read: one of another run is
    refused, damaged or not.

    Args:
      store: checkpoints of the phase. A later stage may have gone on in them beyond
        `steps`.
      state: what to begin with where there is no checkpoint; where there is one, its
        arrays are deleted, so that two states are never held.
      source: of the phase's data.
      origin: what the host's part of each checkpoint of this run says.
      base: that of the state (`base_fingerprint`).
      steps: iterations of the phase.
      resume: step of the checkpoint to take; the newest by default.

    Returns:
      Iterations done, the state after them, and the host's part of the checkpoint; 0,
      `state` and nothing where training begins.

    Raises:
      CheckpointError: there is none of the step `resume`, it is of another run, of
        other data or of adapters on another base, or it does not fit `state`.
      DamagedCheckpointError: it cannot be read; of the newest, nor can any before it.
    """
    candidates = [step for step in store.steps if step <= steps]
    if resume is not None:
        if resume not in candidates:
            raise CheckpointError(
                f"Expected a checkpoint of step {resume} in {store.directory}, got "
                f"those of {candidates}; choose one of these."
            )
        candidates = [resume]
    damage: list[DamagedCheckpointError] = []
    for step in reversed(candidates):
        try:
            host = store.host(step)
            check_origin(host, origin, f"{store.directory}/{step}")
            _check_base(host.get("base"), base, f"{store.directory}/{step}")
            source.set_state(host["source"])
            saved, _ = store.restore(_emptied(state._replace(base=None)), step)
        except DamagedCheckpointError as error:
            if resume is not None:
                raise
            damage.append(error)
            _logger.warning("%s Going back to the checkpoint before it.", error)
        else:
            return step, saved._replace(base=state.base), host
    if damage:
        raise DamagedCheckpointError(
            f"{damage[0]} Expected one that can be read among the steps {candidates}, "
            "got none. Put a whole one there, or move these away to begin the phase "
            "anew."
        )
    return 0, state, {}


def _emptied(state: TrainState) -> TrainState:
    """Shapes and shardings of a state whose arrays are deleted, but for its key."""

    def emptied(leaf: jax.Array) -> Any:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        shape = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
        leaf.delete()
        return shape

    return jax.tree.map(emptied, state)


def base_fingerprint(state: TrainState) -> str | None:
    """What a checkpoint of adapters says of the weights that they are on.

    These are not in it: the sums of their bits are, and the adapters' scales, which are
    no arrays. None without LoRA.
    """
    if state.base is None:
        return None
    adapters = jax.tree.leaves(
        state.params, is_leaf=lambda node: isinstance(node, Adapter)
    )
    scales = [adapter.scale for adapter in adapters]
    return fingerprint([bit_sums(state.base), scales])


def check_origin(
    saved: Mapping[str, Any], origin: Mapping[str, Any], what: str
) -> None:
    """Makes sure that something saved is of the run and phase that wants to use it.

    Args:
      saved: holds what `origin` holds if it is.
      origin: of the run and phase.
      what: was saved; for the message.

    Raises:
      CheckpointError: it is of another.
    """
    differences = [
        f"{name} {saved.get(name)!r}, not {expected!r}"
        for name, expected in origin.items()
        if saved.get(name) != expected
    ]
    if differences:
        raise CheckpointError(
            f"Expected {what} to be of this run, got one of {', '.join(differences)}; "
            "put it back where it belongs, or start a new run."
        )


def _check_base(saved: str | None, base: str | None, what: str) -> None:
    """Makes sure that adapters go on where they were trained, and on nothing else."""
    if saved == base:
        return
    kinds = [
        "all parameters" if one is None else f"adapters on the base {one}"
        for one in (base, saved)
    ]
    raise CheckpointError(
        f"Expected {what} to be of {kinds[0]}, got {kinds[1]}: adapters mean nothing "
        "on other weights. Resume with the policy, the lora.alpha and the "
        "lora.base_dtype that it was trained with, or start a new run."
    )
