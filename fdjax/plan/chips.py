"""What is published of TPU chips: peak, memory, bandwidth, links."""

from dataclasses import dataclass

from fdjax.errors import ConfigError

__all__ = ["CHIPS", "GIB", "Chip", "chip_of"]

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A device as JAX counts them: a chip, of a TPU7x half of one.

    Peaks are Google's (docs.cloud.google.com/tpu/docs, pages v5e, v5p, v6e and tpu7x,
    read in November 2026). No program reaches them: what divides by them is a bound.
    """

    name: str
    """As topologies are called: "v5e" of "v5e:4x4"."""
    flops: float
    """Products of bfloat16, a second."""
    usable_gib: float
    """Memory that a program may have, by the compiler's own word when one needs more:
    some of what is sold is the system's."""
    bandwidth: float
    """Of that memory, bytes a second."""
    links: int
    """To other chips."""
    link: float
    """Bytes a second over one of them, one way."""
    flops_a_cycle: int | None = None
    """Of a large product, where that is known."""
    devices: int = 1
    """Of JAX, on a chip."""

    @property
    def usable_bytes(self) -> int:
        """`usable_gib` in bytes."""
        return int(self.usable_gib * GIB)

    @property
    def received(self) -> float:
        """Bytes a second over all links at once: no exchange is faster."""
        return self.links * self.link

    @property
    def ring(self) -> float:
        """Bytes a second of a ring through it, in both directions: two links."""
        return 2 * self.link

    @property
    def clock(self) -> float:
        """Cycles a second.

        Raises:
          ConfigError: it is not known.
        """
        if self.flops_a_cycle is None:
            raise ConfigError(
                f"expected a chip whose products a cycle are known, got {self.name}"
            )
        return self.flops / self.flops_a_cycle


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v5e",
            flops=197e12,
            usable_gib=15.75,
            bandwidth=819e9,
            links=4,
            link=50e9,
            flops_a_cycle=2 * 4 * 128 * 128,
        ),
        Chip(
            name="v5p",
            flops=459e12,
            usable_gib=95.74,
            bandwidth=2_765e9,
            links=6,
            link=100e9,
            flops_a_cycle=2 * 8 * 128 * 128,
        ),
        Chip(
            name="v6e",
            flops=918e12,
            usable_gib=31.25,
            bandwidth=1_638e9,
            links=4,
            link=100e9,
            flops_a_cycle=2 * 4 * 256 * 256,
        ),
        # Half of a chip of 2,307 TFLOP/s, 7,380 GB/s and six links.
        Chip(
            name="tpu7x",
            flops=2_307e12 / 2,
            usable_gib=94.75,
            bandwidth=7_380e9 / 2,
            links=3,
            link=100e9,
            devices=2,
        ),
    )
}
"""By name."""


def chip_of(topology: str) -> Chip:
    """The chip of a slice.

    Args:
      topology: such as "v5e:4x4".

    Raises:
      ConfigError: nothing is known of it.
    """
    name = topology.partition(":")[0]
    if name not in CHIPS:
        raise ConfigError(
            f"expected a topology of {', '.join(CHIPS)}, such as v5e:4x4, v5p:2x4x4 or "
            f"tpu7x:2x2x1, got {topology!r}"
        )
    return CHIPS[name]
