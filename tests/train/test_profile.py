"""A trace of chosen iterations, as a profiler reads it."""

import gzip

import jax
import jax.numpy as jnp
import pytest

from fdjax.errors import ConfigError
from fdjax.train import Profile


def test_chosen_iterations_leave_a_trace_with_their_programs(tmp_path):
    profile = Profile(iterations=(2,), folder=tmp_path / "profile")
    made = []

    @jax.jit
    def doubled_for_the_trace(x):
        return x + x

    for iteration in (1, 2, 3):
        with profile.of("fd", iteration, lambda: made):
            made.append(doubled_for_the_trace(jnp.ones(8)))
    assert [path.name for path in (tmp_path / "profile/fd").iterdir()] == ["2"]
    [trace] = (tmp_path / "profile/fd/2").rglob("*.trace.json.gz")
    assert b"doubled_for_the_trace" in gzip.decompress(trace.read_bytes())
    assert list((tmp_path / "profile/fd/2").rglob("*.xplane.pb"))


def test_an_error_in_a_traced_iteration_ends_the_trace(tmp_path):
    profile = Profile(iterations=(1, 2), folder=tmp_path)
    with pytest.raises(KeyError), profile.of("fd", 1, lambda: ()):
        raise KeyError
    with profile.of("fd", 2, lambda: ()):
        pass
    assert (tmp_path / "fd/2").exists()


def test_iterations_are_counted_from_one():
    with pytest.raises(ConfigError, match="iterations"):
        Profile(iterations=(0,))
