"""The hosts of a run meet, say what they have, and hear the same findings."""

import time
from dataclasses import asdict

import jax

from fdjax.doctor import Finding
from fdjax.encoding import decode, encode
from fdjax.errors import ConfigError
from fdjax.objects import place
from fdjax.pod.facts import HostFacts, facts_of_host
from fdjax.pod.findings import devices_alike, findings_of
from fdjax.pod.folder import folder_of_all
from fdjax.pod.options import DoctorOptions
from fdjax.run.joining import join
from fdjax.sharding import gather

__all__ = ["examine_pod"]

_ROUNDS = 5
"""Looks at the clocks, of which the closest counts."""


def examine_pod(options: DoctorOptions) -> list[Finding]:
    """What is to be said of all hosts; the same on each of them.

    A collective; the first call of JAX in the process.

    Args:
      options: what is looked at.

    Raises:
      ConfigError: a setting is out of range.
    """
    options.backend_config()
    place(options.runs)
    if options.endpoint and not options.endpoint.startswith(("http://", "https://")):
        raise ConfigError(
            f"expected endpoint to begin with http:// or https://, got "
            f"{options.endpoint!r}"
        )
    if options.processes.several:
        join(options.processes)
    devices = devices_alike(_devices())
    if devices.state != "ok":
        # No collective of the hosts is possible, and so no run.
        return [devices]
    mine = facts_of_host(options)
    facts = [HostFacts(**decode(fact)) for fact in gather(encode(asdict(mine)))]
    clocks_s = _clocks_ahead()
    folder = folder_of_all(place(options.runs)) if options.runs else None
    found = findings_of(
        facts, clocks_s=clocks_s, folder=folder, endpoint=options.endpoint
    )
    return [devices, *found]


def _devices() -> list[str]:
    """Number and kind of those that each process drives; every process sees all."""
    return [
        f"{len(kinds)} × {', '.join(sorted(set(kinds)))}"
        for kinds in (
            [one.device_kind for one in jax.devices() if one.process_index == process]
            for process in range(jax.process_count())
        )
    ]


def _clocks_ahead() -> list[float]:
    """How far each clock is ahead of that of process 0, seconds.

    All look at theirs when a collective has ended, which it does not everywhere at the
    same moment: the round in which it did most nearly so counts.
    """
    rounds = []
    for _ in range(_ROUNDS):
        gather(b"")
        times = [decode(said) for said in gather(encode(time.time()))]
        rounds.append([one - times[0] for one in times])
    return [min(aheads, key=abs) for aheads in zip(*rounds, strict=True)]
