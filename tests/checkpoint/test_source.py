"""What kind of model a path is, and which of its arguments are for it."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from checkpoint.folders import CONFIG, write_folder
from fdjax.checkpoint import CheckpointStore, convert, load_pretrained, open_source
from fdjax.checkpoint.names import weights
from fdjax.checkpoint.paths import nested
from fdjax.errors import CheckpointError
from tiny import mesh_of


def _params(value):
    """Parameters in the shape of CONFIG that are all `value`."""
    params = {}
    for weight in weights(CONFIG):
        layers = () if weight.layer is None else (CONFIG.num_layers,)
        nested(weight.path, jnp.full(layers + weight.shape, value), params)
    return params


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model in each form, and a run with a phase that keeps a teacher."""
    base = tmp_path_factory.mktemp("source")
    write_folder(base / "hf")
    convert(open_source(base / "hf"), base / "orbax", to="orbax")
    run = base / "run"
    shutil.copytree(base / "hf", run / "model")
    (run / "config.json").write_text('{"config": {}, "provenance": {}}')
    phases = {"fd": _params(2.0), "grpo": None}
    for phase, teacher in phases.items():
        with CheckpointStore(run / "checkpoints" / phase) as store:
            for step in (4, 8):
                state = {"params": _params(float(step)), "teacher": teacher}
                store.save(step, state, {})
    return base


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def test_strangers_beside_a_model_do_not_change_its_kind(copy):
    for name in ("8", "weights", "state.txt", "checkpoint-500"):
        (copy / "hf" / name).mkdir()
    assert open_source(copy / "hf").kind == "hf"
    fd = copy / "run/checkpoints/fd"
    for name in ("12", "008", "٩", "8 (copy)", "-1"):
        (fd / name).mkdir()
    shutil.copytree(fd / "4/state", fd / "0016/state")
    assert open_source(fd).weights.name == "8"
    (copy / "orbax/model.safetensors").mkdir()
    assert open_source(copy / "orbax").kind == "orbax"


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("hf/model.safetensors", "orbax", r"model\.safetensors of .* and weights of"),
        ("hf/model.safetensors", "run/checkpoints/fd", r"safetensors of .* and 4 of"),
        ("hf/model.safetensors", "run/checkpoints/fd/4", r"safetensors of .*and state"),
        ("orbax/weights", "run/checkpoints/fd", r"weights of converted .* and 4 of"),
        (
            "run/checkpoints/fd/4/state",
            "run/checkpoints/fd",
            r"state of one .*and 4 of",
        ),
    ],
)
def test_a_folder_of_two_kinds_is_refused_with_both(copy, first, second, message):
    target = copy / second / first.rpartition("/")[2]
    move = shutil.copytree if (copy / first).is_dir() else shutil.copyfile
    move(copy / first, target)
    with pytest.raises(CheckpointError, match=f"one model in .*{message}"):
        open_source(copy / second)


def test_a_run_names_its_phases(made):
    with pytest.raises(CheckpointError, match=r"one phase: \S+/fd, \S+/grpo\."):
        open_source(made / "run")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["model-00001-of-00002.safetensors"], "index.json belongs to .* download it"),
        (["adapter_config.json", "adapter_model.safetensors"], "merge the adapter"),
        (["consolidated.safetensors"], "save_pretrained"),
        (["model.fp16.safetensors"], "save_pretrained"),
    ],
)
def test_what_is_missing_is_said(tmp_path, files, message):
    for name in ["config.json", *files]:
        (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError, match=message):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("hf", {"step": 4}, "leave out --step"),
        ("hf", {"model": "hf"}, "leave out --model"),
        ("orbax", {"step": 0}, "leave out --step"),
        ("hf", {"revision": "main"}, "leave out --revision"),
        ("run/checkpoints/fd/4", {"step": 8}, r"of step 8, got .*/fd/4"),
        ("run/checkpoints/fd", {"step": 6}, r"of step 6 .*'4', '8'"),
    ],
)
def test_an_argument_for_another_kind_is_refused(made, source, arguments, message):
    if "model" in arguments:
        arguments = {"model": made / arguments["model"]}
    with pytest.raises(CheckpointError, match=message):
        open_source(made / source, **arguments)


def test_a_phase_without_a_teacher_says_so(made):
    fd, grpo = (open_source(made / "run/checkpoints" / name) for name in ("fd", "grpo"))
    for source, which, value in ((fd, "teacher", 2), (grpo, "student", 8)):
        reader = source.reader(which)
        np.testing.assert_array_equal(reader.read(reader.weights[0]), value)
    with pytest.raises(
        CheckpointError, match=r"teacher in .*grpo/8.*leave out --which"
    ):
        grpo.reader("teacher")
    with pytest.raises(CheckpointError, match="policy alone"):
        load_pretrained(made / "run/checkpoints/grpo", mesh_of(), which="teacher")


@pytest.mark.parametrize("lost", ["d/*", "*"])
def test_a_damaged_step_names_the_others(copy, lost):
    fd = copy / "run/checkpoints/fd"
    (fd / "8/host").mkdir(exist_ok=True)
    for path in sorted((fd / "8/state").rglob(lost), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    if lost == "*":
        (fd / "8/state").rmdir()
    source = open_source(fd)
    with pytest.raises(CheckpointError, match=r"fd/8/state.*another step \(4\)"):
        source.reader()
    reader = open_source(fd, step=4).reader()
    np.testing.assert_array_equal(reader.read(reader.weights[0]), 4)


def test_a_models_config_does_not_make_a_run_of_it(copy):
    """The step's folder may hold a config.json; the run's `model` describes it."""
    (copy / "run/checkpoints/fd/8/config.json").write_text(json.dumps({"step": 8}))
    source = open_source(copy / "run/checkpoints/fd/8")
    assert (source.kind, source.description) == ("run", copy / "run" / "model")
