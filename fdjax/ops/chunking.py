"""How rows are cut into chunks, and how they and the vocabulary lie on a mesh."""

import math
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from fdjax.errors import ConfigError
from fdjax.ops.layouts import count_devices, lay_out, several
from fdjax.ranges import Whole, require

__all__ = ["BY_RULE", "Chunking", "Cut", "cut_of"]

_CHUNKS = {"cpu": (24 << 20, 384)}
_CHUNK = (5 << 25, 1024)
"""Logits of a chunk on a device, at most, and rows beyond which products gain little:
of CPUs, and of accelerators, which read the head once for more rows."""


class Chunking(NamedTuple):
    """How rows are cut into chunks, and over which devices they lie.

    While logits are made the vocabulary is cut over all axes but `data`. So devices
    along `fsdp` see one another's rows of a chunk, and no device holds the whole head
    or adds up a gradient of all of it: they exchange hidden states and their slopes.
    Where the vocabulary does not divide, the head is gathered.
    """

    rows: int | None = None
    """Rows of a chunk on a device. By default 640 MiB of logits, 1,024 rows at most,
    and on CPUs 96 MiB and 384; or, if more, a quarter of the model's width: each chunk
    reads and writes the gradient of the head [V, D] once, which takes as long as its
    products if rows are few."""
    mesh: Mesh | None = None
    """Devices; None for one, or inside a `shard_map` of your own."""
    batch_axes: tuple[str, ...] = ("data", "fsdp")
    """Axes of the mesh over which the batch is cut."""
    shared_axes: tuple[str, ...] = ("fsdp",)
    """Those of them along which devices see one another's rows, a chunk at a time. The
    head's width lies over them where it is not in use."""

    def size(self, rows: int, *, vocabulary: int, width: int) -> int:
        """Rows of a chunk, for as many rows, tokens and hidden units as on a device.

        Raises:
          ConfigError: the number asked for is not positive.
        """
        if self.rows is not None:
            require("Chunking.rows", self.rows, Whole(1))
        platform = jax.default_backend()
        if self.mesh is not None:
            platform = self.mesh.devices.flat[0].platform
        elements, most = _CHUNKS.get(platform, _CHUNK)
        by_rule = max(1, min(most, elements // vocabulary), width // 4)
        chunks = max(1, -(-rows // (self.rows or by_rule)))
        return max(1, -(-rows // chunks))


BY_RULE = Chunking()
"""Chunks by the rule, on one device or as the compiler sees fit."""


class Cut(NamedTuple):
    """What lies over which axes of a mesh."""

    mesh: Mesh | None
    rows: tuple[str, ...]
    """Axes that cut rows alone: each device has chunks of its own."""
    shared: tuple[str, ...]
    """Axes that cut the batch and, of the rows of a chunk, the vocabulary."""
    vocabulary: tuple[str, ...]
    """Axes that cut the vocabulary, the shared ones last."""
    rest: tuple[str, ...]
    """Axes that cut the head's width where it is not in use."""

    @property
    def parts(self) -> int:
        """Devices that see one another's rows."""
        return count_devices(self.mesh, self.shared)

    def table(self, array: Any) -> Any:
        """An array [V, ...], cut over the vocabulary."""
        return lay_out(array, self.mesh, self.vocabulary)

    def at_rest(self, array: Any) -> Any:
        """A sum shaped as the head, if there is one, as parameters lie."""
        others = tuple(name for name in self.vocabulary if name not in self.shared)
        return None if array is None else lay_out(array, self.mesh, others, self.rest)

    def size(self, chunking: Chunking, hidden: Any, head: Any) -> int:
        """Rows of a chunk on a device."""
        others = [name for name in self.vocabulary if name not in self.shared]
        devices = count_devices(self.mesh, self.rows + self.shared)
        return chunking.size(
            math.prod(hidden.shape[:2]) // devices,
            vocabulary=-(-head.shape[0] // count_devices(self.mesh, others)),
            width=head.shape[1],
        )

    def own(self, array: Any) -> Any:
        """An array [parts, ...], each device with its own."""
        return lay_out(array, self.mesh, self.shared)

    def seen(self, array: Any) -> Any:
        """The rows [parts · R, ...] of an array [parts, R, ...], on all devices."""
        whole = lay_out(array, self.mesh)
        return whole.reshape(-1, *array.shape[2:])


def cut_of(chunking: Chunking, hidden: Any, head: Any) -> Cut:
    """How a chunk's rows and the vocabulary lie.

    Raises:
      ConfigError: the batch cannot be cut evenly.
    """
    mesh = chunking.mesh
    axes = tuple(name for name in chunking.batch_axes if name in several(mesh))
    parts = count_devices(mesh, axes)
    if hidden.shape[0] % parts:
        raise ConfigError(
            f"expected a batch divisible by the {parts} devices of {axes}, got "
            f"{hidden.shape[0]} rows: change the batch or the mesh"
        )
    others = tuple(name for name in several(mesh) if name not in axes)
    shared = rest = tuple(name for name in axes if name in chunking.shared_axes)
    if head.shape[1] % count_devices(mesh, rest):
        rest = ()
    vocabulary = others + shared
    if head.shape[0] % count_devices(mesh, vocabulary):
        vocabulary, shared = others, ()
    if head.shape[0] % count_devices(mesh, others):
        vocabulary = ()
    rows = tuple(name for name in axes if name not in shared)
    return Cut(mesh, rows, shared, vocabulary, rest)
