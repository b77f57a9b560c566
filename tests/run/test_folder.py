"""A run's folder: who may open it, and what may be different then."""

import dataclasses
import errno
import fcntl
import json
import os
from pathlib import Path

import pytest
import tyro

from experiments import quickstart
from experiments.miniature.config import (
    ComparisonConfig,
    DistillationConfig,
    EvaluationConfig,
    ModelSize,
    PolicyGradientConfig,
    RolloutConfig,
    WarmStartConfig,
)
from experiments.miniature.dataset import DatasetConfig
from experiments.miniature.resume import RESUME
from fdjax.errors import ConfigError, DataError
from fdjax.run.folder import begun_phases, open_run
from fdjax.train import OptimizerConfig, StoppedError

CONFIG = ComparisonConfig()


def changed(**settings):
    return dataclasses.replace(CONFIG, **settings)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    with open_run(folder, CONFIG, RESUME, resume=False):
        pass
    for name in ("metrics.jsonl", "samples.jsonl"):
        (folder / name).touch()
    return folder


def begin(folder, *phases):
    for phase in phases:
        for item in ("state", "host"):
            (folder / "checkpoints" / phase / "4" / item).mkdir(parents=True)


def reopened(folder, config=CONFIG):
    """What a person is told, and what config.json says then."""
    with open_run(folder, config, RESUME, resume=True) as run:
        return run, json.loads((folder / "config.json").read_text())


def test_a_run_keeps_its_id(folder):
    run, content = reopened(folder)
    assert run.id == content["id"]
    assert len(run.id) == 32
    with open_run(folder.parent / "other", CONFIG, RESUME, resume=False) as other:
        assert other.id != run.id


def test_one_process_at_a_time(folder):
    mine = rf"process {os.getpid()} on "
    with (
        open_run(folder, CONFIG, RESUME, resume=True),
        pytest.raises(ConfigError, match=mine),
        open_run(folder, CONFIG, RESUME, resume=True),
    ):
        pass
    # The file stays, as after kill -9; nobody holds it.
    (folder / "lock").write_text("process 1 on elsewhere\n")
    with open_run(folder, CONFIG, RESUME, resume=True):
        assert f"process {os.getpid()} " in (folder / "lock").read_text()


def test_what_a_killed_process_was_writing_is_cleared_away(folder):
    """Whether or not it had come to write its configuration."""
    new = folder.parent / "new"
    new.mkdir()
    for one, resume in ((new, False), (folder, True)):
        (one / ".fdjax-0123456789abcdef.tmp").write_text("half a fi")
        with open_run(one, CONFIG, RESUME, resume=resume):
            assert not [*one.glob(".fdjax-*")]


def test_a_file_system_without_locks_is_said(folder, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    reopened(folder)
    assert "start no second run" in caplog.text


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    arguments = ["--runs", str(tmp_path.parent), "--name", tmp_path.name]
    assert quickstart.main(arguments) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_there_and_a_run_missing(folder):
    with (
        pytest.raises(ConfigError, match="--resume"),
        open_run(folder, CONFIG, RESUME, resume=False),
    ):
        pass
    absent = folder.parent / "absent"
    with (
        pytest.raises(ConfigError, match="got none"),
        open_run(absent, CONFIG, RESUME, resume=True),
    ):
        pass
    assert not absent.exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"config": {}}', "", "\udcff"])
def test_a_damaged_configuration(folder, text):
    (folder / "config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match=r"run in .*config\.json, got"):
        reopened(folder)


@pytest.mark.parametrize(
    "part",
    [
        {"id": None},
        {"config": None},
        {"config": [1]},
        {"provenance": []},
        {"resumed": {}},
        {"resumed": [1]},
        {"resumed": [{"provenance": None}]},
    ],
)
def test_a_configuration_with_a_part_of_another_kind(folder, part):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | part))
    with pytest.raises(ConfigError, match=r"run in .*config\.json, got"):
        reopened(folder)


def test_a_length_that_is_no_number_is_a_difference(folder):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["config"]["rollout"]["steps"] = "36"
    path.write_text(json.dumps(content))
    begin(folder, "grpo")
    with pytest.raises(ConfigError, match=r"rollout\.steps was '36', now 36"):
        reopened(folder)


def test_a_file_in_the_folders_place(tmp_path):
    (tmp_path / "run").touch()
    with (
        pytest.raises(ConfigError, match="got a file; give another --name"),
        open_run(tmp_path / "run", CONFIG, RESUME, resume=False),
    ):
        pass


def test_the_notes_of_an_error_are_said(tmp_path, monkeypatch, capsys):
    def refused(context, verifier):
        error = DataError("row 3")
        error.add_note("The state after 2 iterations is saved.")
        error.add_note("-----\nJAX has removed its frames.")
        raise error

    monkeypatch.setattr(quickstart, "compare", refused)
    assert quickstart.main(["--runs", str(tmp_path), "--name", "run"]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert said == "error row 3 The state after 2 iterations is saved."


FREE = [
    changed(name="moved"),
    changed(runs=Path("elsewhere")),
    changed(minif2f=Path(__file__)),
    changed(lean_workers=1),
    changed(resume="newest"),
    changed(evaluation=EvaluationConfig(samples=128)),
    changed(rollout=RolloutConfig(steps=40)),
]


@pytest.mark.parametrize("config", FREE)
def test_what_decides_nothing_may_change_at_any_time(folder, config):
    begin(folder, *RESUME.phases)
    reopened(folder, config)


FAST = OptimizerConfig(learning_rate=0.1)
FIXED = [
    (changed(seed=1), "seed was 0, now 1", "sft"),
    (changed(lean_timeout_s=9.0), "lean_timeout_s was 5.0, now 9.0", "sft"),
    (changed(data=DatasetConfig(pool=801)), "data.pool was 800, now 801", "sft"),
    (changed(model=ModelSize(num_layers=2)), "model.num_layers was 3, now 2", "sft"),
    (changed(warm_start=WarmStartConfig(batch_size=8)), "warm_start.batch", "sft"),
    (changed(warm_start=WarmStartConfig(steps=9)), "warm_start.steps", "sft"),
    (changed(warm_start=WarmStartConfig(steps=1_801)), "warm_start.steps", "grpo"),
    (changed(rollout=RolloutConfig(max_new_tokens=41)), "max_new_tokens", "sft"),
    (changed(rollout=RolloutConfig(feedback_tokens=41)), "feedback_tokens", "sft"),
    (changed(fd=DistillationConfig(plan=2)), "fd.plan", "sft"),
    (changed(rollout=RolloutConfig(temperature=0.5)), "temperature", "grpo"),
    (changed(rollout=RolloutConfig(steps=35)), "steps was 36, now 35", "grpo"),
    (changed(rollout=RolloutConfig(handover=9)), "rollout.handover", "fd"),
    (changed(grpo=PolicyGradientConfig(clip_low=0.1)), "grpo.clip_low", "grpo"),
    (changed(fd=DistillationConfig(teacher_rate=0.1)), "fd.teacher_rate", "fd"),
    (
        changed(fd_then_grpo=PolicyGradientConfig(clip_low=0.1)),
        "fd_then_grpo.clip_low",
        "fd_then_grpo",
    ),
    (changed(control=FAST), "control.learning_rate", "sft_references"),
]


@pytest.mark.parametrize(("config", "named", "phase"), FIXED)
def test_a_phase_fixes_its_settings_by_beginning(folder, config, named, phase):
    begin(folder, *RESUME.phases[: RESUME.phases.index(phase)])
    earlier = (folder / "config.json").read_bytes()
    _, content = reopened(folder, config)
    assert any(named.split(" ")[0] in name for name in content["resumed"][0]["changed"])
    (folder / "config.json").write_bytes(earlier)
    begin(folder, phase)
    with pytest.raises(ConfigError, match=named):
        reopened(folder, config)
    assert (folder / "config.json").read_bytes() == earlier


def test_the_history_of_a_run_is_kept(folder):
    begin(folder, "sft")
    first = json.loads((folder / "config.json").read_text())
    run, _ = reopened(folder, changed(lean_workers=1))
    assert run.notes == ("lean_workers was 2, now 1",)
    (folder / "samples.jsonl").unlink()
    run, content = reopened(folder, changed(lean_workers=1, name="b"))
    assert run.notes[0] == "name was quickstart, now b"
    assert "samples.jsonl is gone" in run.notes[1]
    assert content["config"]["lean_workers"] == 1
    assert content["provenance"] == first["provenance"]
    assert [one["changed"] for one in content["resumed"]] == [
        {"lean_workers": [2, 1]},
        {"name": ["quickstart", "b"]},
    ]
    assert [one["lost"] for one in content["resumed"]] == [[], ["samples.jsonl"]]


def test_other_code_and_packages_are_said(folder):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["provenance"] |= {"git": "0a1b"}
    content["provenance"]["packages"]["jax"] = "0.9.0"
    path.write_text(json.dumps(content))
    run, _ = reopened(folder)
    assert any(note.startswith("git was 0a1b, now ") for note in run.notes)
    assert any(note.startswith("packages.jax was 0.9.0, now") for note in run.notes)
    assert not reopened(folder)[0].notes


def test_an_empty_checkpoint_begins_no_phase(folder):
    (folder / "checkpoints" / "sft" / "4").mkdir(parents=True)
    assert begun_phases(folder, RESUME) == []


@pytest.mark.parametrize(
    ("arguments", "choice"),
    [
        ([], "no"),
        (["--resume"], "newest"),
        (["--resume", "--seed", "1"], "newest"),
        (["--resume", "newest"], "newest"),
        (["--resume", "auto"], "auto"),
    ],
)
def test_resume_on_the_command_line(arguments, choice):
    config = tyro.cli(ComparisonConfig, default=CONFIG, args=arguments)
    assert config.resume == choice


@pytest.mark.parametrize("words", [["whole"], ["auto", "newest"]])
def test_no_such_resume(words, capsys):
    with pytest.raises(SystemExit):
        tyro.cli(ComparisonConfig, default=CONFIG, args=["--resume", *words])
    assert "no, newest, auto" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("phases", "error"),
    [([], DataError("row 3")), ([], IndexError("3")), (["sft"], DataError("row 3"))],
)
def test_the_corrected_command_finds_its_way(
    tmp_path, monkeypatch, capsys, phases, error
):
    """Free where nothing was trained; by --resume, which the error says, elsewhere."""

    def refused(context, verifier):
        begin(context.folder, *phases)
        raise error

    monkeypatch.setattr(quickstart, "compare", refused)
    arguments = ["--runs", str(tmp_path), "--name", "run"]
    if isinstance(error, DataError):
        assert quickstart.main(arguments) == 2
    else:
        with pytest.raises(IndexError):
            quickstart.main(arguments)
    said = " ".join(capsys.readouterr().out.split())
    assert ("corrected command goes on with --resume" in said) == bool(phases)

    def stopped(context, verifier):
        raise StoppedError("Stopped.")

    monkeypatch.setattr(quickstart, "compare", stopped)
    corrected = [*arguments, "--rollout.temperature", "0.5"]
    assert quickstart.main(corrected + ["--resume"] * bool(phases)) == 130
