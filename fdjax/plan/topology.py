"""Slices of TPUs that are not here, as their compiler knows them."""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from fdjax.errors import ConfigError, InstallError
from fdjax.plan.chips import chip_of
from fdjax.sharding import make_mesh

__all__ = ["mesh_on", "prepare", "slice_devices"]


def prepare() -> None:
    """Lets the compiler start on a machine that has no TPU; call it before JAX does.

    Raises:
      InstallError: the compiler is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InstallError(
            "expected libtpu, the TPU's compiler, got none; it needs no TPU: "
            f'pip install "jax[tpu]=={jax.__version__}"'
        )
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    )
    jax.config.update("jax_platforms", "cpu")


def slice_devices(topology: str) -> Sequence[Any]:
    """All devices of a slice.

    Args:
      topology: chip and shape, such as "v5e:4x4", "v5p:2x4x4" (sold as v5p-64) or
        "tpu7x:2x2x1".

    Raises:
      ConfigError: there is no such slice.
    """
    chip_of(topology)
    try:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **_wrapped(topology)
        ).devices
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise ConfigError(
            f"expected a slice that there is, such as v5e:4x4, v5p:2x4x4, v6e:4x4 or "
            f"tpu7x:2x2x1, got {topology!r}: {said}"
        ) from error


def mesh_on(topology: str, *, data: int = 1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """As many devices as asked for of a slice, in a mesh as a run has it.

    Args:
      topology: see `slice_devices`.
      data: see `fdjax.sharding.make_mesh`.
      fsdp: likewise.
      tensor: likewise.

    Raises:
      ConfigError: there is no such slice.
    """
    devices = slice_devices(topology)
    return make_mesh(
        data=data,
        fsdp=fsdp,
        tensor=tensor,
        devices=devices[: data * fsdp * tensor],
    )


def _wrapped(topology: str) -> dict[str, Any]:
    """Which axes of a slice close to a ring: those of whole cubes, and of whole pods.

    By default none does, and the compiler exchanges arrays along lines.
    """
    shape = topology.partition(":")[2].split("x")
    if not all(size.isdecimal() for size in shape):
        return {}
    sizes = [int(size) for size in shape]
    if len(sizes) == 3:
        closed = all(size % 4 == 0 for size in sizes)
        return {"wrap": (closed,) * 3} if closed else {}
    wrap = (*(size == 16 for size in sizes), False)
    return {"wrap": wrap} if any(wrap) else {}
