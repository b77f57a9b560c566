from pathlib import Path

import pytest
from etils import epath

from fdjax.errors import ConfigError
from fdjax.objects import local_folder, place, remote
from fdjax.run import RunConfig


def test_an_address_stays_one_and_a_path_a_path():
    assert place("gs://bucket/runs") == epath.Path("gs://bucket/runs")
    assert place("runs/a:b") == Path("runs/a:b")
    assert remote(place("gs://bucket"))
    assert not remote(place("/data/gs/runs"))


def test_the_slash_that_a_path_takes_is_given_back():
    assert place(Path("gs://bucket/runs")) == epath.Path("gs://bucket/runs")
    assert RunConfig(runs=Path("gs://bucket/runs")).runs == place("gs://bucket/runs")


@pytest.mark.parametrize("address", ["s3://bucket/runs", "memory:/a", "gs://"])
def test_addresses_of_other_stores_are_refused(address):
    with pytest.raises(ConfigError, match="Google Cloud Storage is supported"):
        place(address)


def test_this_machines_part_of_an_address_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert (
        local_folder(place("gs://b/runs")) == tmp_path / "fdjax" / "gs" / "b" / "runs"
    )
    assert local_folder(Path("runs")) == Path("runs")
