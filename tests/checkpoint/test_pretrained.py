import json
import math
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from checkpoint.folders import (
    CONFIG,
    read_folder,
    side_bytes,
    tensors,
    write_folder,
)
from fdjax.checkpoint import (
    CheckpointStore,
    convert,
    load_pretrained,
    open_source,
    save_pretrained,
)
from fdjax.checkpoint.names import weights
from fdjax.errors import CheckpointError, ConfigError
from fdjax.model import Model
from tiny import mesh_of

_MESHES = {
    "one": {},
    "fsdp": {"fsdp": 8},
    "cube": {"data": 2, "fsdp": 2, "tensor": 2},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same model as safetensors, as Orbax checkpoint, and as a run's teacher."""
    base = tmp_path_factory.mktemp("pretrained")
    write_folder(base / "hf", files=3)
    convert(open_source(base / "hf"), base / "orbax", to="orbax")
    shutil.copytree(base / "hf", base / "run" / "model")
    params = load_pretrained(base / "hf", mesh_of(2, 2, 2)).params
    with CheckpointStore(base / "run" / "fd") as store:
        other = jax.tree.map(jnp.zeros_like, params)
        store.save(4, {"params": other, "teacher": params}, {})
    return base


def _expected(dtype):
    """Parameters put together from the tensors by hand."""
    found = {
        name: array.astype(np.float32).astype(dtype)
        for name, array in tensors().items()
    }

    def stack(name, shape):
        every = [found[f"model.layers.{layer}.{name}.weight"] for layer in range(3)]
        return np.stack([(x.T if x.ndim == 2 else x).reshape(shape) for x in every])

    return {
        "embedding": found["model.embed_tokens.weight"],
        "head": found["lm_head.weight"],
        "norm": {"scale": found["model.norm.weight"]},
        "layers": {
            "attention_norm": {"scale": stack("input_layernorm", (32,))},
            "attention": {
                "query": stack("self_attn.q_proj", (32, 4, 8)),
                "key": stack("self_attn.k_proj", (32, 2, 8)),
                "value": stack("self_attn.v_proj", (32, 2, 8)),
                "output": stack("self_attn.o_proj", (4, 8, 32)),
                "query_norm": {"scale": stack("self_attn.q_norm", (8,))},
                "key_norm": {"scale": stack("self_attn.k_norm", (8,))},
            },
            "mlp_norm": {"scale": stack("post_attention_layernorm", (32,))},
            "mlp": {
                "gate": stack("mlp.gate_proj", (32, 40)),
                "up": stack("mlp.up_proj", (32, 40)),
                "down": stack("mlp.down_proj", (40, 32)),
            },
        },
    }


@pytest.mark.parametrize("sizes", _MESHES.values(), ids=_MESHES)
@pytest.mark.parametrize(
    ("kind", "described"), [("hf", "hf"), ("orbax", "orbax"), ("run/fd", "run/model")]
)
@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_every_mesh_gets_the_tensors(folders, sizes, kind, described, param_dtype):
    mesh = mesh_of(**sizes)
    which = "teacher" if kind == "run/fd" else "student"
    found = load_pretrained(folders / kind, mesh, param_dtype=param_dtype, which=which)
    want = _expected({"bfloat16": ml_dtypes.bfloat16}.get(param_dtype, param_dtype))
    jax.tree.map(np.testing.assert_array_equal, found.params, want)
    for leaf in jax.tree.leaves(found.params):
        assert leaf.dtype == jnp.dtype(param_dtype)
    query = found.params["layers"]["attention"]["query"]
    parts = (mesh.shape["fsdp"], mesh.shape["tensor"])
    assert query.addressable_shards[0].data.shape == (
        3,
        32 // parts[0],
        4 // parts[1],
        8,
    )
    assert found.model.config == CONFIG
    assert found.folder == folders / described


def test_what_does_not_divide_is_refused(folders):
    # Two heads of keys over four devices.
    with pytest.raises(ConfigError, match="fewer devices along that axis"):
        load_pretrained(folders / "hf", mesh_of(tensor=4))


def test_a_part_of_a_weight_reads_no_more_than_its_rows(folders, monkeypatch):
    reader = open_source(folders / "hf").reader()
    asked = []
    part = reader._part
    monkeypatch.setattr(
        reader, "_part", lambda name, index: asked.append(index) or part(name, index)
    )
    query = next(w for w in reader.weights if w.path[-1] == "query" and w.layer == 1)
    got = reader.read(query, (slice(8, 16), slice(1, 3), slice(0, 8)))
    want = tensors()["model.layers.1.self_attn.q_proj.weight"]
    np.testing.assert_array_equal(
        got, want.T.reshape(32, 4, 8)[8:16, 1:3].astype(got.dtype)
    )
    assert asked == [(slice(8, 24), slice(8, 16))]


def test_a_run_keeps_its_layers_apart_and_large_weights_in_chunks(folders, monkeypatch):
    """What one layer of a stack takes is that layer's chunks, on a mesh as well."""
    monkeypatch.setattr("fdjax.checkpoint.store.CHUNK_BYTES", 1_000)
    params = load_pretrained(folders / "hf", mesh_of(2, 2, 2)).params
    with CheckpointStore(folders / "small") as store:
        store.save(0, {"params": params}, {})
    saved = ocp.PyTreeCheckpointHandler().metadata(folders / "small" / "0" / "state")
    chunks = jax.tree.map(lambda leaf: leaf.storage.chunk_shape, saved.tree["params"])
    assert chunks["layers"]["mlp"]["up"] == (1, 8, 20)  # shards are [3, 16, 20]
    assert 4 * math.prod(chunks["embedding"]) <= 1_000
    found = open_source(folders / "small" / "0", model=folders / "hf").reader()
    up = next(w for w in found.weights if w.path[-1] == "up" and w.layer == 1)
    want = params["layers"]["mlp"]["up"][1]
    np.testing.assert_array_equal(found.read(up), want)
    part = (slice(3, 20), slice(5, 31))
    np.testing.assert_array_equal(found.read(up, part), want[part])


def test_blocks_of_a_tensor_make_the_whole(folders, monkeypatch):
    monkeypatch.setattr("fdjax.checkpoint.hf_reader._BLOCK_BYTES", 300)
    found = load_pretrained(folders / "hf", mesh_of())
    jax.tree.map(np.testing.assert_array_equal, found.params, _expected("float32"))


def test_settings_say_how_it_is_computed(folders):
    found = load_pretrained(
        folders / "hf", mesh_of(), dtype="bfloat16", remat="full", attention="xla"
    )
    want = replace(CONFIG, dtype="bfloat16", remat="full", attention="xla")
    assert found.model.config == want


@pytest.mark.parametrize("sizes", _MESHES.values(), ids=_MESHES)
def test_parameters_go_back_to_hugging_face(folders, tmp_path, sizes):
    found = load_pretrained(folders / "orbax", mesh_of(**sizes))
    save_pretrained(
        found.params,
        found.model.config,
        tmp_path / "back",
        description=found.folder,
        max_shard_bytes=30_000,
    )
    assert read_folder(tmp_path / "back") == read_folder(folders / "hf")
    assert side_bytes(tmp_path / "back") == side_bytes(folders / "hf")
    save_pretrained(
        found.params,
        replace(found.model.config, remat="full"),
        tmp_path / "wide",
        description=found.folder,
        dtype="float32",
    )
    kinds = {kind for kind, *_ in read_folder(tmp_path / "wide").values()}
    assert kinds == {"float32"}
    config = json.loads((tmp_path / "wide" / "config.json").read_text())
    assert config["dtype"] == "float32"


def test_another_models_description_is_refused(folders, tmp_path):
    found = load_pretrained(folders / "hf", mesh_of())
    other = replace(found.model.config, rope_theta=5.0)
    with pytest.raises(CheckpointError, match=r"rope_theta=5.0"):
        save_pretrained(
            found.params, other, tmp_path / "back", description=found.folder
        )
    assert not (tmp_path / "back").exists()


def test_names_cover_every_parameter():
    for config in (
        CONFIG,
        replace(CONFIG, attention_bias=True, output_bias=True),
        replace(
            CONFIG,
            qk_norm=False,
            attention_bias=True,
            output_bias=True,
            mlp_bias=True,
            tie_word_embeddings=True,
        ),
    ):
        shapes = jax.eval_shape(Model(config).init, jax.random.key(0))
        size = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        every = weights(config)
        assert sum(int(np.prod(weight.shape)) for weight in every) == size
        assert len({weight.tensor for weight in every}) == len(every)
        assert len({weight.keys for weight in every}) == len(every)
