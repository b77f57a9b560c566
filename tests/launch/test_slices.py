"""Slices, as Google's pages list them."""

import pytest

from fdjax.errors import ConfigError
from fdjax.plan.chips import chip_of
from tpu import gcloud, sky
from tpu.slices import SLICES, queued_slice_of, slice_of


@pytest.mark.parametrize(
    ("type", "topology", "chips", "hosts", "machine"),
    # "TPU v5e", "TPU v5p", "TPU v6e" and "TPU7x" of Cloud TPU's documentation.
    [
        ("v5litepod-4", "2x2", 4, 1, "ct5lp-hightpu-4t"),
        ("v5litepod-8", "2x4", 8, 1, "ct5lp-hightpu-8t"),
        ("v5litepod-16", "4x4", 16, 4, "ct5lp-hightpu-4t"),
        ("v5litepod-256", "16x16", 256, 64, "ct5lp-hightpu-4t"),
        ("v5p-8", "2x2x1", 4, 1, "ct5p-hightpu-4t"),
        ("v5p-64", "2x4x4", 32, 8, "ct5p-hightpu-4t"),
        ("v5p-128", "4x4x4", 64, 16, "ct5p-hightpu-4t"),
        ("v6e-8", "2x4", 8, 1, "ct6e-standard-8t"),
        ("v6e-64", "8x8", 64, 16, "ct6e-standard-4t"),
        # As xpk 1.x has them, too: two cores a chip, four chips a host.
        ("tpu7x-8", "2x2x1", 4, 1, "tpu7x-standard-4t"),
        ("tpu7x-16", "2x2x2", 8, 2, "tpu7x-standard-4t"),
        ("tpu7x-128", "4x4x4", 64, 16, "tpu7x-standard-4t"),
    ],
)
def test_a_slice_has_its_hosts(type, topology, chips, hosts, machine):
    found = slice_of(type)
    assert found.topology == topology
    assert (found.chips, found.hosts) == (chips, hosts)
    assert found.machine == machine
    assert found.chips_per_host * hosts == chips


def test_an_unknown_type_is_told_which_there_are():
    with pytest.raises(ConfigError, match=r"v5p-64.*got 'v5p-32x'.*two cores a chip"):
        slice_of("v5p-32x")


def test_each_type_is_there_once():
    topologies = [(one.accelerator, one.topology) for one in SLICES.values()]
    assert len(set(topologies)) == len(topologies) == 30


def test_a_generation_of_gke_alone_is_refused_elsewhere():
    assert queued_slice_of("v5p-64") is slice_of("v5p-64")
    with pytest.raises(ConfigError, match=r"got 'tpu7x-16': use python -m tpu\.gke"):
        queued_slice_of("tpu7x-16")
    for way in (gcloud, sky):
        words = "--name fd --type tpu7x-16 --runs gs://b/runs --dry-run".split()
        zone = ["--zone", "z"] if way is gcloud else []
        verb = "resume" if way is gcloud else "launch"
        assert way.main([verb, *words, *zone, "--", "experiments.prover"]) == 2


def test_plan_and_launch_know_the_same_generations():
    for topology in ("v5e:4x4", "v5p:2x4x4", "v6e:8x8", "tpu7x:2x2x1"):
        assert chip_of(topology)
        name, sides = topology.split(":")
        known = {
            one.topology
            for one in SLICES.values()
            if one.type.startswith({"v5e": "v5litepod"}.get(name, name))
        }
        assert sides in known
