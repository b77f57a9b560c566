import pytest

from fdjax.errors import DataError
from fdjax.plots import read_run, read_runs


def test_a_finished_run_is_read_whole(run_dir):
    files = read_run(run_dir)
    assert files.name == "tiny <b>run"
    assert files.arms == ["grpo", "fd"]  # the evaluation's order, not the metrics'
    assert len(files.metrics) == 10
    assert len(files.samples) == 3
    assert files.evaluation["k"] == [1, 2, 4]


def test_a_row_that_is_being_written_is_left_out(run_dir):
    for name, rows in (("metrics.jsonl", 10), ("samples.jsonl", 3)):
        with (run_dir / name).open("a") as file:
            file.write('{"arm": "fd", "st')
        files = read_run(run_dir)
        assert len(files.metrics if name == "metrics.jsonl" else files.samples) == rows


def test_a_run_that_has_just_begun(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"arm": "sft", "step": 1, "a": NaN}\n')
    files = read_run(tmp_path)
    assert files.metrics == [{"arm": "sft", "step": 1, "a": None}]
    assert files.evaluation == files.config == {}
    assert files.samples == []


def test_folders_and_files_that_are_no_run_are_refused(run_dir, tmp_path):
    with pytest.raises(DataError, match="got none"):
        read_run(tmp_path)
    path = run_dir / "metrics.jsonl"
    path.write_text("damage\n" + path.read_text())
    with pytest.raises(DataError, match="line 1"):
        read_run(run_dir)
    path.unlink()
    (run_dir / "eval.json").write_text("{")
    with pytest.raises(DataError, match=r"eval\.json"):
        read_run(run_dir)
    (run_dir / "eval.json").write_text("[]")
    with pytest.raises(DataError, match="object"):
        read_run(run_dir)


def test_runs_are_named_by_what_tells_them_apart(run_dir, tmp_path):
    others = [tmp_path / "a" / "seed0", tmp_path / "b" / "seed0"]
    for folder in others:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    names = [run.name for run in read_runs([*others, others[0] / ".", run_dir])]
    assert names == ["a/seed0", "b/seed0", f"{tmp_path.name}/{run_dir.name}"]
    assert [run.name for run in read_runs([run_dir])] == [run_dir.name]


def test_rows_have_what_is_read_of_them(run_dir):
    with (run_dir / "samples.jsonl").open("a") as file:
        file.write('{"arm": "fd", "step": 1}\n')  # the last line may be anything
    assert len(read_run(run_dir).samples) == 3
    with (run_dir / "samples.jsonl").open("a") as file:
        file.write('{"arm": "fd", "step": 1}\n')
    with pytest.raises(DataError, match="statement"):
        read_run(run_dir)
