import json
import re
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import fdjax.checkpoint.conversion as conversion
from checkpoint.folders import (
    CONFIG,
    read_folder,
    side_bytes,
    tensors,
    write_folder,
)
from checkpoint.limited import run_limited
from fdjax.checkpoint import CheckpointStore, convert, open_source
from fdjax.errors import CheckpointError, ConfigError
from fdjax.model import config_to_hf
from fdjax.train import BaseTeacher, OptimizerConfig, init_state, make_optimizer
from tiny import MODEL, TOKENIZER, mesh_of

_QWEN2 = replace(CONFIG, qk_norm=False, attention_bias=True, tie_word_embeddings=True)


def _leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("config", [CONFIG, _QWEN2], ids=["qwen3", "qwen2-tied"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float16"])
@pytest.mark.parametrize("files", [1, 4])
def test_there_and_back_is_bit_identical(tmp_path, config, dtype, files):
    source = write_folder(tmp_path / "hf", config, files, dtype)
    convert(open_source(source), tmp_path / "orbax", to="orbax")
    convert(
        open_source(tmp_path / "orbax"),
        tmp_path / "back",
        to="hf",
        max_shard_bytes=20_000 if files > 1 else 10**9,
    )
    assert read_folder(tmp_path / "back") == read_folder(source)
    assert side_bytes(tmp_path / "back") == side_bytes(source)
    assert side_bytes(tmp_path / "orbax") == side_bytes(source)
    index = tmp_path / "back" / "model.safetensors.index.json"
    assert index.exists() == (files > 1)
    assert not _leftovers(tmp_path)


def test_files_keep_to_their_size_and_the_index_to_the_files(tmp_path):
    source = write_folder(tmp_path / "hf", files=2)
    convert(open_source(source), tmp_path / "new", to="hf", max_shard_bytes=12_000)
    index = json.loads((tmp_path / "new/model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "new").glob("*.safetensors"))
    assert [path.name for path in files] == sorted(set(index["weight_map"].values()))
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    # The head and the embedding are larger than a file may be, and stand alone.
    assert sorted(path.stat().st_size > 13_000 for path in files)[-3:] == [
        False,
        True,
        True,
    ]
    assert index["metadata"]["total_size"] == sum(
        array.nbytes for array in tensors().values()
    )


def test_another_dtype_is_noted_in_config_json(tmp_path):
    source = write_folder(tmp_path / "hf", dtype="float32")
    convert(open_source(source), tmp_path / "new", to="hf", dtype="bfloat16")
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    before = json.loads((source / "config.json").read_text())
    assert config == before | {"dtype": "bfloat16"}
    got, want = read_folder(tmp_path / "new"), tensors(dtype="float32")
    for name, array in want.items():
        rounded = array.astype(ml_dtypes.bfloat16)
        assert got[name] == ("bfloat16", array.shape, rounded.tobytes())


def test_a_weight_that_float16_cannot_hold_is_refused(tmp_path):
    big = np.full((32,), 1e5, np.float32)
    source = write_folder(
        tmp_path / "hf", dtype="float32", changes={"model.norm.weight": big}
    )
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight to fit float16"):
        convert(open_source(source), tmp_path / "new", to="hf", dtype="float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


def _with_tensor(name, array):
    return {"changes": {name: array}}


_BIAS = np.zeros((32,), ml_dtypes.bfloat16)
_BAD = {
    "missing": (
        _with_tensor("model.layers.1.mlp.up_proj.weight", None),
        r"the tensor model\.layers\.1\.mlp\.up_proj\.weight .* got none",
    ),
    "extra": (
        _with_tensor("model.layers.0.self_attn.q_proj.bias", _BIAS),
        r"got model\.layers\.0\.self_attn\.q_proj\.bias \(BF16, \[32\]\)",
    ),
    "shape": (
        _with_tensor("model.norm.weight", np.zeros((31,), ml_dtypes.bfloat16)),
        r"model\.norm\.weight .* shape \[32\] .* got \[31\]",
    ),
    "transposed": (
        _with_tensor(
            "model.layers.2.mlp.down_proj.weight",
            np.zeros((40, 32), ml_dtypes.bfloat16),
        ),
        r"model\.layers\.2\.mlp\.down_proj\.weight .* \[32, 40\] .* got \[40, 32\]",
    ),
    "integers": (
        _with_tensor("lm_head.weight", np.zeros((304, 32), np.int8)),
        r"lm_head\.weight .* F32, BF16, F16, got I8; of quantised weights",
    ),
    "quantised": (
        _with_tensor(
            "model.layers.0.mlp.up_proj.weight_scale", np.zeros((1,), np.float32)
        ),
        r"weight_scale .*quantised",
    ),
}


@pytest.mark.parametrize("fault", _BAD)
@pytest.mark.parametrize("files", [1, 3])
def test_tensors_that_are_not_the_models_are_named(tmp_path, fault, files):
    arguments, message = _BAD[fault]
    source = write_folder(tmp_path / "hf", files=files, **arguments)
    with pytest.raises(CheckpointError, match=message):
        convert(open_source(source), tmp_path / "new", to="orbax")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("keep", [0.0, 0.2, 0.9])
def test_a_truncated_file_is_named_with_its_tensors(tmp_path, files, keep):
    source = write_folder(tmp_path / "hf", files=files)
    path = sorted(source.glob("*.safetensors"))[-1]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    tensor = "all tensors" if files == 1 else r"model\.\S+ \(and \d+ more\)"
    with pytest.raises(CheckpointError, match=f"{path.name}, which holds {tensor}"):
        convert(open_source(source), tmp_path / "new", to="orbax")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


def test_a_file_of_the_index_that_is_not_there_is_named(tmp_path):
    source = write_folder(tmp_path / "hf", files=3)
    (source / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"model-00002-of-00003.*which holds model"
    ):
        open_source(source).reader()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"weight_map": {}}', '{"weight_map": {"a": "../a.safetensors"}}'],
)
def test_a_damaged_index_is_named(tmp_path, content):
    source = write_folder(tmp_path / "hf", files=2)
    (source / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        open_source(source).reader()


def test_a_head_beside_tied_embeddings_must_equal_them(tmp_path):
    table = tensors(_QWEN2)["model.embed_tokens.weight"]
    same = write_folder(
        tmp_path / "same", _QWEN2, changes={"lm_head.weight": table.copy()}
    )
    convert(open_source(same), tmp_path / "new", to="hf")
    assert "lm_head.weight" not in read_folder(tmp_path / "new")
    other = table.copy()
    other[-1, -1] += 1
    source = write_folder(tmp_path / "hf", _QWEN2, changes={"lm_head.weight": other})
    with pytest.raises(CheckpointError, match=r"lm_head\.weight .*tie_word_embeddings"):
        open_source(source).reader()


def test_frequencies_of_old_llamas_are_not_missed(tmp_path):
    frequencies = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros((4,), np.float32)
    }
    source = write_folder(tmp_path / "hf", changes=frequencies)
    convert(open_source(source), tmp_path / "new", to="hf")
    assert set(read_folder(tmp_path / "new")) == set(tensors())


@pytest.mark.parametrize("kind", ["pytorch_model.bin", "model.gguf", "notes.txt"])
def test_what_is_no_checkpoint_is_told_apart(tmp_path, kind):
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / kind).write_text("x")
    with pytest.raises(CheckpointError, match=f"{kind}.*save_pretrained"):
        open_source(folder)


def test_an_unknown_architecture_is_named(tmp_path):
    source = write_folder(tmp_path / "hf")
    content = json.loads((source / "config.json").read_text())
    content |= {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}
    (source / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"'mamba'.*MambaForCausalLM"):
        open_source(source)


@pytest.mark.parametrize("used", ["folder", "file"])
def test_a_target_in_use_is_left_alone(tmp_path, used):
    source = write_folder(tmp_path / "hf")
    target = tmp_path / "new"
    if used == "folder":
        target.mkdir()
        (target / "mine").write_text("keep")
    else:
        target.write_text("keep")
    with pytest.raises(CheckpointError, match="new folder to write to"):
        convert(open_source(source), target, to="orbax")
    assert (target / "mine" if used == "folder" else target).read_text() == "keep"
    assert not _leftovers(tmp_path)


@pytest.mark.parametrize("to", ["hf", "orbax"])
def test_a_stop_in_the_middle_leaves_nothing(tmp_path, to):
    source = write_folder(tmp_path / "hf")

    def stop(done, total, name):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(
            open_source(source),
            tmp_path / "new",
            to=to,
            max_shard_bytes=10_000,
            progress=stop,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


@pytest.mark.parametrize("to", ["hf", "orbax"])
def test_a_disk_that_fills_up_leaves_nothing(tmp_path, to):
    """The system refuses to let any file of a process grow beyond 8 kB."""
    source = write_folder(tmp_path / "hf", dtype="float32")
    for path in source.glob("token*"):
        path.unlink()  # larger than that themselves
    code = f"""
import resource, signal, sys
from fdjax.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, resource.RLIM_INFINITY))
sys.argv = ["fdjax", "convert", {str(source)!r}, "new", "--to", {to!r}]
sys.exit(main())
"""
    ran = run_limited(code, cwd=tmp_path)
    assert ran.returncode == 2, ran.stderr
    assert re.search(r"Expected to write .*nothing is left", ran.stderr, re.DOTALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


def test_a_disk_that_is_too_small_is_known_before(tmp_path, monkeypatch):
    class Usage:
        free = 1_000

    source = write_folder(tmp_path / "hf")
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(CheckpointError, match="GB of free disk"):
        convert(open_source(source), tmp_path / "new", to="hf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


def test_a_damaged_orbax_checkpoint_is_an_error(tmp_path):
    source = write_folder(tmp_path / "hf")
    convert(open_source(source), tmp_path / "orbax", to="orbax")
    for path in (tmp_path / "orbax/weights/state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"Orbax checkpoint at .*write it again"):
        convert(open_source(tmp_path / "orbax"), tmp_path / "new", to="hf")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("lost", ["data", "all"])
def test_lost_files_are_an_error_and_not_zeros(tmp_path, run, lost):
    folder, _ = run
    shutil.copytree(folder, tmp_path / "run")
    state = tmp_path / "run" / "checkpoints" / "fd" / "3" / "state"
    for path in list(state.rglob("d/*")):
        path.unlink()
    if lost == "all":
        (state / "manifest.ocdbt").unlink()
    with pytest.raises(CheckpointError, match=r"Orbax checkpoint at .*write it again"):
        convert(open_source(state.parent), tmp_path / "new", to="hf")
    assert not (tmp_path / "new").exists()


def test_an_orbax_checkpoint_of_another_model_is_an_error(tmp_path):
    source = write_folder(tmp_path / "hf")
    convert(open_source(source), tmp_path / "orbax", to="orbax")
    path = tmp_path / "orbax" / "config.json"
    path.write_text(
        path.read_text().replace('"num_hidden_layers": 3', '"num_hidden_layers": 4')
    )
    with pytest.raises(CheckpointError, match=r"layers/3/.* got none"):
        open_source(tmp_path / "orbax").reader()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder after three steps, its teacher unlike its student."""
    folder = tmp_path_factory.mktemp("run")
    model = folder / "model"
    model.mkdir()
    TOKENIZER.save_pretrained(str(model))
    (model / "config.json").write_text(json.dumps(config_to_hf(MODEL.config)))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2))
    state = init_state(
        MODEL, optimizer, mesh_of(2, 2, 2), jax.random.key(0), teacher=BaseTeacher()
    )
    state = state._replace(teacher=jax.tree.map(lambda leaf: leaf + 1.0, state.params))
    with CheckpointStore(folder / "checkpoints" / "fd") as store:
        store.save(2, jax.tree.map(jnp.copy, state), {})
        store.wait()
        state = state._replace(params=jax.tree.map(lambda leaf: -leaf, state.params))
        store.save(3, state, {})
        store.wait()
    return folder, jax.device_get(state)


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_policy_and_teacher_come_out_of_a_training_checkpoint(tmp_path, run, which):
    folder, state = run
    found = open_source(folder / "checkpoints" / "fd")
    convert(found, tmp_path / "hf", to="hf", which=which, max_shard_bytes=30_000)
    params = state.params if which == "student" else state.teacher
    got = read_folder(tmp_path / "hf")
    query = np.asarray(params["layers"]["attention"]["query"][1])  # [D, N, H]
    tensor = query.reshape(query.shape[0], -1).T
    assert got["model.layers.1.self_attn.q_proj.weight"] == (
        "float32",
        tensor.shape,
        np.ascontiguousarray(tensor).tobytes(),
    )
    assert (tmp_path / "hf" / "tokenizer.json").exists()
    convert(open_source(tmp_path / "hf"), tmp_path / "orbax", to="orbax")
    convert(open_source(tmp_path / "orbax"), tmp_path / "again", to="hf")
    assert read_folder(tmp_path / "again") == got


def test_a_step_can_be_chosen(tmp_path, run):
    folder, state = run
    for source in (
        open_source(folder / "checkpoints" / "fd", step=2),
        open_source(folder / "checkpoints" / "fd" / "2"),
    ):
        reader = source.reader()
        weight = reader.weights[0]
        np.testing.assert_array_equal(
            reader.read(weight), -np.asarray(state.params["embedding"])
        )


def test_a_step_that_is_not_there_is_an_error(run):
    folder, _ = run
    with pytest.raises(CheckpointError, match=r"of step 7 in .*'2', '3'"):
        open_source(folder / "checkpoints" / "fd", step=7)


def test_a_training_checkpoint_without_its_model_asks_for_it(tmp_path, run):
    folder, _ = run
    lonely = tmp_path / "fd"
    lonely.symlink_to(folder / "checkpoints" / "fd")
    with pytest.raises(CheckpointError, match="name one with --model"):
        open_source(lonely)
    found = open_source(lonely, model=folder / "model")
    assert found.config == replace(MODEL.config)


def test_only_a_training_checkpoint_has_a_teacher(tmp_path):
    source = write_folder(tmp_path / "hf")
    with pytest.raises(CheckpointError, match="leave out --which"):
        convert(open_source(source), tmp_path / "new", to="hf", which="teacher")
