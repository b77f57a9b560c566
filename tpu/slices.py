"""Slices of TPUs: what Cloud TPU and GKE call each, and how many hosts it has.

After Google's pages on TPU v5e, v5p, v6e and TPU7x, and on TPUs in GKE.
"""

from dataclasses import dataclass

from fdjax.errors import ConfigError

__all__ = ["SLICES", "Slice", "queued_slice_of", "slice_of"]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One slice, whole: its hosts are rented, lost and deleted together."""

    type: str
    """Of Cloud TPU (`--accelerator-type`), of xpk and, after `tpu-`, of SkyPilot."""
    topology: str
    """Chips along each axis, as JAX and GKE have it."""
    chips: int
    hosts: int
    runtime: str
    """Image of the machines (`--runtime-version`); empty where GKE alone has them."""
    accelerator: str
    """GKE's name of the generation."""
    machine: str
    """GKE's type of a host."""
    policy: bool = False
    """Whether GKE places several hosts by a workload policy, not by their topology."""

    @property
    def chips_per_host(self) -> int:
        """Chips that one process drives."""
        return self.chips // self.hosts


@dataclass(frozen=True, kw_only=True)
class _Generation:
    type: str
    """`{}` stands for the number in the type's name."""
    cores: int
    """What that number counts for each chip."""
    one_host: int
    """Chips of the largest slice that is a single host; larger ones have 4 a host."""
    runtime: str
    accelerator: str
    machine: str
    topologies: tuple[str, ...]
    policy: bool = False

    def slices(self) -> list[Slice]:
        """All of this generation."""
        return [self._slice(topology) for topology in self.topologies]

    def _slice(self, topology: str) -> Slice:
        chips = 1
        for side in topology.split("x"):
            chips *= int(side)
        hosts = 1 if chips <= self.one_host else chips // 4
        return Slice(
            type=self.type.format(chips * self.cores),
            topology=topology,
            chips=chips,
            hosts=hosts,
            runtime=self.runtime,
            accelerator=self.accelerator,
            machine=self.machine.format(chips // hosts),
            policy=self.policy and hosts > 1,
        )


_FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SOLID = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
_GENERATIONS = (
    _Generation(
        type="v5litepod-{}",
        cores=1,
        one_host=8,
        runtime="v2-alpha-tpuv5-lite",
        accelerator="tpu-v5-lite-podslice",
        machine="ct5lp-hightpu-{}t",
        topologies=_FLAT,
    ),
    _Generation(
        type="v5p-{}",
        cores=2,
        one_host=4,
        runtime="v2-alpha-tpuv5",
        accelerator="tpu-v5p-slice",
        machine="ct5p-hightpu-{}t",
        topologies=_SOLID,
    ),
    _Generation(
        type="v6e-{}",
        cores=1,
        one_host=8,
        runtime="v2-alpha-tpuv6e",
        accelerator="tpu-v6e-slice",
        machine="ct6e-standard-{}t",
        topologies=_FLAT,
    ),
    _Generation(
        type="tpu7x-{}",
        cores=2,
        one_host=4,
        runtime="",
        accelerator="tpu7x",
        machine="tpu7x-standard-{}t",
        topologies=_SOLID,
        policy=True,
    ),
)

SLICES = {
    each.type: each for generation in _GENERATIONS for each in generation.slices()
}
"""By the type's name."""


def slice_of(type: str) -> Slice:
    """The slice of this type, such as v5litepod-16.

    Raises:
      ConfigError: there is none.
    """
    if type not in SLICES:
        raise ConfigError(
            f"expected type to be one of {', '.join(SLICES)}, got {type!r}: v5p and "
            "tpu7x count two cores a chip, so v5p-64 has 32 chips"
        )
    return SLICES[type]


def queued_slice_of(type: str) -> Slice:
    """The slice of this type, which Cloud TPU itself rents, without GKE.

    Raises:
      ConfigError: there is none, or it does not.
    """
    slice = slice_of(type)
    if not slice.runtime:
        raise ConfigError(
            f"expected a type that Cloud TPU rents without GKE, such as v5p-64, got "
            f"{type!r}: use python -m tpu.gke"
        )
    return slice
