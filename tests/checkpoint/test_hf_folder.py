"""Folders that say a thing twice: transformers' choice, or an error that names both.

What transformers does was tried with 5.23 and PyTorch, on folders of the same make.
"""

import json
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from checkpoint.folders import CONFIG, read_folder, tensors, write_folder
from fdjax.checkpoint import convert, open_source
from fdjax.errors import CheckpointError

_TIED = replace(CONFIG, tie_word_embeddings=True)
_TABLE, _HEAD, _NORM = (
    "model.embed_tokens.weight",
    "lm_head.weight",
    "model.norm.weight",
)
_INDEX = "model.safetensors.index.json"


def _write(folder, stored, config=CONFIG):
    """A folder whose only file holds `stored`."""
    write_folder(folder, config)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _read(folder):
    """Every weight as the tensor that it is, in its own type."""
    reader = open_source(folder).reader()
    return {
        weight.tensor: weight.to_hf(reader.read(weight)) for weight in reader.weights
    }


def _assert_equal(folder, want):
    got = _read(folder)
    assert got.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def _edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("shards", ["other", "absent", "damaged"])
def test_a_whole_file_counts_before_an_index(tmp_path, shards):
    """As `_get_resolved_checkpoint_files` looks for the one before the other."""
    folder = write_folder(tmp_path / "hf", files=2)
    save_file(tensors(seed=1), folder / "model.safetensors")
    for path in folder.glob("model-*"):
        if shards == "absent":
            path.unlink()
        elif shards == "damaged":
            path.write_bytes(b"")
    _assert_equal(folder, tensors(seed=1))


def test_what_others_read_is_left_alone(tmp_path):
    folder = write_folder(tmp_path / "hf")
    other = tensors(seed=1)
    for name in ("consolidated", "adapter_model", "model.fp16", "model-1-of-1"):
        save_file(other, folder / f"{name}.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    (folder / "pytorch_model.bin.index.json").write_text("{")
    _assert_equal(folder, tensors())


def test_an_index_says_which_files_there_are_and_their_headers_the_rest(tmp_path):
    folder = write_folder(tmp_path / "hf", files=3)
    index = json.loads((folder / _INDEX).read_text())
    names = index["weight_map"]
    # One is said to be in another file, of one nothing is said, one is in no file.
    names[_TABLE] = names[_HEAD]
    del names[_NORM]
    names["model.gone.weight"] = names[_HEAD]
    (folder / _INDEX).write_text(json.dumps(index))
    _assert_equal(folder, tensors())


def test_a_tensor_in_two_files_is_refused_with_both(tmp_path):
    folder = write_folder(tmp_path / "hf", files=2)
    path = folder / "model-00002-of-00002.safetensors"
    save_file(load_file(path) | {_TABLE: tensors(seed=1)[_TABLE]}, path)
    with pytest.raises(
        CheckpointError, match=rf"{_TABLE} once .*00001-of-00002.*00002-of-00002"
    ):
        open_source(folder).reader()


@pytest.mark.parametrize("prefix", ["", "model.model."])
def test_the_base_models_prefix_may_be_missing_or_there_twice(tmp_path, prefix):
    """As `rename_source_key` adds or takes away `base_model_prefix`."""
    stored = {
        prefix + name.removeprefix("model."): array for name, array in tensors().items()
    }
    if prefix:
        stored["model." + _HEAD] = stored.pop(prefix + _HEAD)
    _assert_equal(_write(tmp_path / "hf", stored), tensors())


def test_a_tensor_under_both_spellings_is_refused_with_both(tmp_path):
    stored = tensors() | {"norm.weight": tensors(seed=1)[_NORM]}
    with pytest.raises(
        CheckpointError, match=r"got model\.norm\.weight.* norm\.weight"
    ):
        open_source(_write(tmp_path / "hf", stored)).reader()


@pytest.mark.parametrize("name", [_TABLE, _HEAD, "model." + _HEAD])
def test_tied_tensors_may_be_stored_under_either_name(tmp_path, name):
    """As `tie_weights` takes the one that is there."""
    want = tensors(_TIED)
    stored = {key: array for key, array in want.items() if key != _TABLE}
    folder = _write(tmp_path / "hf", stored | {name: want[_TABLE]}, _TIED)
    _assert_equal(folder, want)
    convert(open_source(folder), tmp_path / "new", to="hf")
    assert read_folder(tmp_path / "new").keys() == want.keys()


def test_tied_tensors_of_two_types_are_refused(tmp_path):
    head = tensors(_TIED)[_TABLE].astype(np.float32)
    folder = _write(tmp_path / "hf", tensors(_TIED) | {_HEAD: head}, _TIED)
    with pytest.raises(CheckpointError, match=rf"{_HEAD} .* to equal {_TABLE}"):
        open_source(folder).reader()


_UNTOLD = {
    "untied, no head": ({_HEAD: None}, CONFIG, "set tie_word_embeddings to true"),
    "tied, neither": ({_TABLE: None}, _TIED, "do not belong together"),
    "float64": (
        {_NORM: np.zeros((32,), np.float64)},
        CONFIG,
        "F32, BF16, F16, got F64; save the weights in one of these",
    ),
    "float8": (
        {_NORM: np.zeros((32,), ml_dtypes.float8_e4m3fn)},
        CONFIG,
        "got F8_E4M3; of quantised weights",
    ),
}


@pytest.mark.parametrize("case", _UNTOLD)
def test_a_folder_that_is_not_the_models_says_what_to_do(tmp_path, case):
    changes, config, message = _UNTOLD[case]
    folder = write_folder(tmp_path / "hf", config, changes=changes)
    with pytest.raises(CheckpointError, match=message):
        open_source(folder).reader()


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("_orig_mod.", r"nearest is _orig_mod\.model\.embed.*torch\.compile"),
        ("base_model.model.", r"nearest is base_model\.model\.model.*merge_and_unload"),
        ("module.", r"nearest is module\.model\.embed.*parallel wrapper"),
        ("transformer.", r"nearest is transformer\.model\.embed.*do not belong"),
    ],
)
def test_names_in_a_wrapper_say_whose(tmp_path, prefix, message):
    stored = {prefix + name: array for name, array in tensors().items()}
    with pytest.raises(CheckpointError, match=message):
        open_source(_write(tmp_path / "hf", stored)).reader()


_OTHERS = {
    "adapter": ("adapter_config.json", "no adapter in .*merge"),
    "distributed": (
        "shard-00000-model-00001-of-00002.safetensors",
        "alone in .*distributed checkpoint",
    ),
}


@pytest.mark.parametrize("other", _OTHERS)
def test_weights_that_transformers_would_take_instead_are_refused(tmp_path, other):
    name, message = _OTHERS[other]
    folder = write_folder(tmp_path / "hf")
    (folder / name).write_text("{}")
    with pytest.raises(CheckpointError, match=message):
        open_source(folder).reader()


def test_a_file_of_weights_named_in_config_json_is_refused(tmp_path):
    folder = write_folder(tmp_path / "hf")
    save_file(tensors(seed=1), folder / "other.safetensors")
    _edit(folder / "config.json", transformers_weights="other.safetensors")
    with pytest.raises(CheckpointError, match=r"transformers_weights .*'other\.safe"):
        open_source(folder)
    _edit(folder / "config.json", transformers_weights=None)
    _assert_equal(folder, tensors())


@pytest.mark.parametrize("name", ["config.json", _INDEX])
def test_a_key_with_two_values_is_named(tmp_path, name):
    folder = write_folder(tmp_path / "hf", files=2)
    path = folder / name
    key, value = next(iter(json.loads(path.read_text()).items()))
    twice = json.dumps({key: value})[:-1] + "," + path.read_text().lstrip()[1:]
    path.write_text(twice)
    _assert_equal(folder, tensors())  # twice the same is once
    path.write_text(twice.replace(json.dumps(value), '"other"', 1))
    with pytest.raises(
        CheckpointError, match=f"one value of '{key}' .*{name}.*'other'"
    ):
        open_source(folder).reader()


def test_both_keys_of_the_type_are_written(tmp_path):
    folder = write_folder(tmp_path / "hf", dtype="float32")
    _edit(folder / "config.json", torch_dtype="float32", dtype="bfloat16")
    convert(open_source(folder), tmp_path / "new", to="hf", dtype="float16")
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert (config["torch_dtype"], config["dtype"]) == ("float16", "float16")
    # Without a type each weight keeps its own, and config.json says what it said.
    convert(open_source(folder), tmp_path / "same", to="hf")
    assert {kind for kind, *_ in read_folder(tmp_path / "same").values()} == {"float32"}
    assert (tmp_path / "same/config.json").read_bytes() == (
        folder / "config.json"
    ).read_bytes()
