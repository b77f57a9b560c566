"""The device mesh, and the start-up of several hosts."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from fdjax.errors import ConfigError
from fdjax.ranges import Whole, require

__all__ = ["initialize_distributed", "make_mesh"]

_HEARTBEAT_S = 30
"""Seconds without a sign of life after which a process counts as gone, and the others
end."""


def make_mesh(
    *,
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """A mesh over all devices with axes data, fsdp and tensor.

    Neighbouring devices share `tensor` first, which talks most. The axes are Auto: the
    compiler propagates layouts from parameters and batch.

    Args:
      data: replicas, each with its own part of the batch; -1 takes the devices that
        the other axes leave.
      fsdp: devices that share the batch and the parameters; -1 likewise.
      tensor: devices that share heads, the inner layer and the vocabulary; -1 likewise.
      devices: these instead of all that JAX sees, for instance some that are not there.

    Raises:
      ConfigError: the axes do not multiply to the number of devices.
    """
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    devices = list(jax.devices() if devices is None else devices)
    asked = ", ".join(f"{name}={size}" for name, size in sizes.items())
    for name, size in sizes.items():
        if size != -1:
            require(f"mesh axis {name}", size, Whole(1), remedy="-1 takes the rest")
    if list(sizes.values()).count(-1) > 1:
        raise ConfigError(f"expected at most one mesh axis of -1, got {asked}")
    known = 1
    for size in sizes.values():
        known *= max(size, 1)
    if -1 in sizes.values() and len(devices) % known == 0:
        rest = len(devices) // known
        sizes = {name: rest if size == -1 else size for name, size in sizes.items()}
        known = len(devices)
    if known != len(devices):
        raise ConfigError(
            f"expected mesh axes whose product is the number of devices, "
            f"{len(devices)}, got {asked}: change one, or set one to -1"
        )
    # An axis may be a part of a physical one, as tensor=4 of a slice of 8 × 8 chips.
    placed = mesh_utils.create_device_mesh(
        tuple(sizes.values()), devices, allow_split_physical_axes=True
    )
    return Mesh(placed, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def initialize_distributed(
    *,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins this process to the others; call it before anything else of JAX.

    On TPU pods, SLURM and Kubernetes JAX finds all three by itself. Elsewhere give all
    three. A single process does not need it.

    Args:
      coordinator_address: host:port of process 0.
      num_processes: processes in the run.
      process_id: this one, from 0.

    Raises:
      ConfigError: some of the three were given, but not all.
    """
    given = (coordinator_address, num_processes, process_id)
    if any(value is None for value in given) and any(
        value is not None for value in given
    ):
        raise ConfigError(
            "expected coordinator_address, num_processes and process_id together or "
            f"none of them, got {given}"
        )
    jax.distributed.initialize(
        coordinator_address=coordinator_address,
        num_processes=num_processes,
        process_id=process_id,
        heartbeat_timeout_seconds=_HEARTBEAT_S,
    )
