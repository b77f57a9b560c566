"""Models and checkpoints in an object store as the source of others."""

import shutil
import uuid
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("google_crc32c", reason="needs the extra: pip install 'fdjax[gcs]'")

from fdjax.checkpoint import (
    CheckpointStore,
    Exports,
    convert,
    export_policy,
    load_pretrained,
    open_source,
    save_pretrained,
    write_description,
)
from fdjax.errors import CheckpointError
from fdjax.objects import is_whole, place, upload, walk
from fdjax.train import OptimizerConfig, init_state, make_optimizer
from object_store import shared_store
from tiny import MODEL, TOKENIZER, mesh_of


@pytest.fixture
def store(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server = shared_store()
    yield server
    server.fault = lambda method, path: None


@pytest.fixture
def address(store):
    return place(f"gs://bucket/{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
def description(tmp_path_factory):
    folder = tmp_path_factory.mktemp("description") / "model"
    write_description(folder, MODEL.config, TOKENIZER)
    return folder


def state():
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3))
    return init_state(MODEL, optimizer, mesh_of(), jax.random.key(3))


def require_same(params, others):
    for one, other in zip(
        jax.tree.leaves(params), jax.tree.leaves(others), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def put(folder, address):
    for path in Path(folder).rglob("*"):
        if path.is_file():
            upload(path, address / path.relative_to(folder).as_posix())


def test_training_checkpoints_are_read_where_they_are(
    address, description, store, tmp_path
):
    trained = state()
    with CheckpointStore(address / "checkpoints" / "fd") as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, trained, {})
    put(description, address / "model")
    loaded = load_pretrained(str(address / "checkpoints" / "fd"), mesh_of())
    require_same(loaded.params, trained.params)
    one = open_source(str(address / "checkpoints" / "fd" / "1"))
    assert str(one.weights).endswith("/fd/1")
    convert(one, tmp_path / "out", to="hf")
    require_same(load_pretrained(tmp_path / "out", mesh_of()).params, trained.params)
    with pytest.raises(CheckpointError, match="got the steps"):
        open_source(str(address / "checkpoints" / "fd"), step=7)
    with pytest.raises(CheckpointError, match=r"checkpoints/<phase>, with one of fd"):
        open_source(str(address))
    with pytest.raises(CheckpointError, match="got nothing; give the address"):
        open_source(str(address / "nowhere"))


def test_a_models_folder_is_fetched_once(address, description, store, tmp_path):
    trained = state()
    save_pretrained(
        trained.params, MODEL.config, tmp_path / "policy", description=description
    )
    put(tmp_path / "policy", address)
    require_same(load_pretrained(str(address), mesh_of()).params, trained.params)
    before = len(store.requests)
    require_same(load_pretrained(str(address), mesh_of()).params, trained.params)
    fetched = [path for _, path in store.requests[before:] if "/download/" in path]
    assert fetched == []


def test_an_export_is_whole_in_the_store(address, description, tmp_path):
    trained = state()
    exports = Exports(address / "exports", export_policy(MODEL.config, description))
    with CheckpointStore(address / "checkpoints") as checkpoints, exports:
        checkpoints.save(4, trained, {})
        exports.begin(checkpoints, 4, "fd-4")
        exports.wait()
        assert exports.missing == 0
    assert is_whole(address / "exports" / "fd-4")
    assert not [name for name in walk(address / "exports") if ".partly" in name]
    loaded = load_pretrained(str(address / "exports" / "fd-4"), mesh_of())
    require_same(loaded.params, trained.params)
    shutil.rmtree(tmp_path / "cache")
